"""Which weights of a file are meant, where it has several: a moving average, a section or an attribute by its name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from spgsurgeon.checkpoint.containers.documents import Document
from spgsurgeon.checkpoint.containers.formats import zero_share
from spgsurgeon.checkpoint.refusals import UnreadableError
from spgsurgeon.checkpoint.state_dict.layouts import COUNTERS, text
from spgsurgeon.checkpoint.state_dict.prefixes import Unwrapped, unwrap
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
from spgsurgeon.errors import DamagedFileError, UsageError

_SHOWN = 8
_ZERO_MARKS = ("zero_stage", "partition_count")  # of DeepSpeed's optimizer


@dataclass(frozen=True)
class Choice:
    """The weights that are meant: their name, where in the file they lie, the attribute that their keys begin with."""

    name: str
    place: tuple[str, ...]
    attribute: str | None = None


def choose_weights(document: Document, weights: str | None) -> Choice:
    """Return which of a document's weights `weights` means; None asks for the EMA where there is one.

    It is "ema", "raw", the name of a top-level section, of an attribute that keys of the weights begin with, or
    SECTION.ATTRIBUTE; a state dict deeper in the file goes by its path, SECTION.SECTION. Raises UnreadableError if
    the file has no such section, where it has several and the choice was left open, and for one process's share of
    DeepSpeed's optimizer.
    """
    _refuse_zero(document.values)
    places = _places(document)
    default = "ema" if document.layout.ema is not None else "raw"
    chosen = default if weights is None else weights
    if chosen in places:
        return Choice(chosen, places[chosen])
    section, _, attribute = chosen.partition(".")
    if section in places and attribute:
        return Choice(chosen, places[section], attribute)
    if (place := _deeper(document, chosen)) is not None:
        return Choice(chosen, place)
    if chosen not in ("ema", "raw") and default in places:
        return Choice(chosen, places[default], chosen)
    raise _not_there(weights, places, _candidates(document))


def under(
    document: Document, choice: Choice, found: Mapping[str, TensorSpec]
) -> tuple[dict[str, TensorSpec], tuple[str, ...]]:
    """Return the tensors under the chosen attribute (or all), and the prefixes that were taken off their keys.

    Wrappers around the attribute need not be named: `encoder` is also `module.encoder`. Raises UnreadableError if no
    key begins with it.
    """
    if choice.attribute is None:
        return dict(found), ()
    prefix, unwrapped = f"{choice.attribute}.", unwrap(found)
    for spelt in (Unwrapped(tuple(found), ()), unwrapped):
        named = zip(spelt.keys, found.values(), strict=True)
        taken = {key.removeprefix(prefix): spec for key, spec in named if key.startswith(prefix) and key != prefix}
        if taken:
            return taken, (*spelt.prefixes, prefix)
    attributes = dict.fromkeys(key.partition(".")[0] for key in unwrapped.keys if "." in key)
    raise _unknown(choice.name, _places(document), attributes)


def _places(document: Document) -> dict[str, tuple[str, ...]]:
    """Return where the weights with a name of their own lie: ema and raw where they are settled, and every section."""
    layout, candidates = document.layout, _candidates(document)
    settled = {"ema": layout.ema, "raw": layout.raw}
    if candidates:
        settled["raw"] = (candidates[0],) if len(candidates) == 1 else None
    named = {name: (name,) for name in _sections(document)}
    return {name: place for name, place in settled.items() if place is not None} | {
        name: place for name, place in named.items() if settled.get(name) is None
    }


def _deeper(document: Document, path: str) -> tuple[str, ...] | None:
    """Return the place of the state dict that a dotted path leads to; None if it leads to none."""
    place, value = tuple(path.split(".")), document.values
    for name in place:
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return place if is_state_dict(document, value) else None


def _candidates(document: Document) -> list[str]:
    """Return the sections that may be the weights, where the layout is unknown and no bare state dict."""
    if document.layout.raw != ():
        return []
    values, sections = document.values, _sections(document)
    if any(isinstance(key, str) and "." in key and _is_tensor(document, key, values[key]) for key in values):
        return []
    distinct = list({id(values[name]): name for name in reversed(sections)}.values())[::-1]
    # A loss has tensors as well, such as a centre; only in those of modules a key has a dot in it.
    return [name for name in distinct if any("." in key for key in values[name])] or distinct


def _sections(document: Document) -> list[str]:
    """Return the names of all top-level state dicts, each looked at once: a hostile file has one under many names."""
    distinct = {id(value): value for value in document.values.values()}
    found = {place for place, value in distinct.items() if is_state_dict(document, value)}
    return [key for key, value in document.values.items() if id(value) in found and text(key)]


def is_state_dict(document: Document, value: object) -> bool:
    """Return whether a value in a document is a dictionary of tensors, counters aside."""
    if not isinstance(value, Mapping):
        return False
    entries = {key: entry for key, entry in value.items() if key not in COUNTERS}
    return bool(entries) and all(_is_tensor(document, key, entry) for key, entry in entries.items())


def _is_tensor(document: Document, key: object, value: object) -> bool:
    try:
        return isinstance(key, str) and document.spec_of(key, value) is not None
    except (UsageError, DamagedFileError):  # a tensor that can't be read; no concern of whoever reads other weights
        return True


def _refuse_zero(values: Mapping[Any, Any]) -> None:
    state = values.get("optimizer_state_dict")
    if isinstance(state, Mapping) and any(mark in state for mark in _ZERO_MARKS):
        raise zero_share()


def _not_there(weights: str | None, places: Mapping[str, tuple[str, ...]], candidates: list[str]) -> UnreadableError:
    if weights not in (None, "ema", "raw"):
        return _unknown(weights, places, ())
    if len(candidates) > 1:
        return UnreadableError(
            f"holds several sets of weights: {', '.join(candidates[:_SHOWN])}",
            hint=f"--weights {candidates[0]} reads those",
            code="ambiguous-weights",
        )
    other = "raw" if weights == "ema" else "ema"
    return UnreadableError(
        f"has no {weights} weights, only {other}", hint=f"--weights {other} reads those", code="no-such-weights"
    )


def _unknown(name: str, places: Mapping[str, tuple[str, ...]], attributes: Iterable[str]) -> UnreadableError:
    leading = [attribute for attribute in attributes if text(attribute) and attribute not in places]
    known = [*list(places)[:_SHOWN], *leading[:_SHOWN]]
    return UnreadableError(
        f"has no weights {name!r:.80}", hint=f"--weights takes {', '.join(known)}", code="no-such-weights"
    )
