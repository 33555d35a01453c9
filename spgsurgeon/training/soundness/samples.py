"""Some samples of a run's data, read before it starts: what they are, and whether they can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from spgsurgeon.data import Data, Examined, Source, examine, listing

_SAMPLES = 64  # of each split
_KEYS = ("looked_at", "unreadable", "kinds", "sizes")


def looked_at(data: Data, notes: Sequence[str]) -> dict[str, Any]:
    """Return what a plan says of samples at even distances, and its `notes` with what they give reason to say."""
    parts: dict[str, Source[Any]] = {"train": data.train, "eval": data.evaluation}
    found = {name: examine(part, most=_SAMPLES) for name, part in parts.items()}
    documents = {name: one.document() for name, one in found.items()}
    said = dict.fromkeys(note for one in found.values() for note in _said(one))
    return {
        "looked_at": {name: {key: document[key] for key in _KEYS} for name, document in documents.items()},
        "notes": [*notes, *said],
    }


def _said(found: Examined) -> Iterator[str]:
    if found.unreadable:
        first, reason = next(iter(found.unreadable.items()))
        count, of = len(found.unreadable), len(found.looked_at)
        yield (
            f"{count} of {of} samples of {found.source.name} that were looked at can't be read: {listing([first])} "
            f"({reason}); training stops there unless data.unreadable=skip; `spgsurgeon check` finds all of them"
        )
    if not found.whole:
        yield from (f"of {len(found.looked_at)} that were looked at, {said}" for said in found.said)
    else:
        yield from found.said
