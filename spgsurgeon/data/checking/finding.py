"""Which form of data lies in a folder, and which splits it has: found by opening them as training would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spgsurgeon.data.sources.class_folders import EVALUATION_SPLITS
from spgsurgeon.data.sources.forms import SOURCES, spelled
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import Source
from spgsurgeon.errors import DataError, SurgeonError, UsageError

TRAIN = "train"
_SPLITS = (TRAIN, *EVALUATION_SPLITS, "dev")
_WHOLE = "."

Splits = dict[str, Source[Any]]


def find_splits(
    form: str | None, path: Path | None, wanted: Sequence[str], how: Mapping[str, Any]
) -> tuple[str, Splits]:
    """Return the form of the data in a folder, and its splits by name.

    `form` None is found out, and so are splits if none is `wanted`: by their usual names, else the folder as a whole.
    `how` is how they are read, see `open_source`. Raises UsageError if no form fits, or more than one does.
    """
    if form is not None:
        return form, _opened(form, path, wanted, how)
    found: dict[str, Splits] = {}
    reasons: dict[str, SurgeonError] = {}
    for name in (form.name for form in SOURCES.values() if form.needs_path and not form.name.endswith("/")):
        try:
            found[name] = _opened(name, path, wanted, how)
        except SurgeonError as error:
            reasons[name] = error
    claims = {name: other for name in found if (other := _claimed_by(found[name]))}
    fitting = [name for name in found if name not in claims]
    classed = [name for name in fitting if SOURCES[name].classed != "nothing"]
    fitting = classed or fitting  # a table with labels can be read without them, too
    if len(fitting) == 1:
        return fitting[0], found[fitting[0]]
    raise _ambiguous(path, fitting) if fitting else _unfit(path, reasons, claims)


def _opened(form: str, path: Path | None, wanted: Sequence[str], how: Mapping[str, Any]) -> Splits:
    if wanted:
        return {split: open_source(form, path, split, **how) for split in wanted}
    found: Splits = {}
    first: UsageError | None = None
    for split in (*_SPLITS, _WHOLE):
        if split == _WHOLE and found:
            break
        try:
            source = open_source(form, path, split, **how)
        except UsageError as error:
            first = first or error
            continue
        if not any(_same(source, other) for other in found.values()):  # some forms have one split of several names
            found[split] = source
    if not found:
        assert first is not None
        raise first
    return found


def _same(one: Source[Any], other: Source[Any]) -> bool:
    marked = len(one) == len(other) and list(one.marks()) == list(other.marks())
    return marked and list(one.file_paths()) == list(other.file_paths())


def _claimed_by(splits: Splits) -> str | None:
    """Return the form for which what looks like class folders are the parts of a split, as images and masks are."""
    forms = (form for form in SOURCES.values() if form.parts)
    return next((f.name for f in forms for source in splits.values() if {*source.classes} <= {*f.parts}), None)


def _ambiguous(path: Path | None, fitting: Sequence[str]) -> UsageError:
    return UsageError(
        f"{path} can be read as {' and as '.join(fitting)}",
        hint=f"say which: --source {fitting[0]}",
        code="ambiguous-data",
    )


def _unfit(path: Path | None, reasons: Mapping[str, SurgeonError], claims: Mapping[str, str]) -> SurgeonError:
    """Return why no form fits: by the one whose folders are there, or whose content is at fault, if there is one."""
    at_fault = [name for name, reason in reasons.items() if isinstance(reason, DataError)]
    name = next((name for name in (*claims.values(), *at_fault) if name in reasons), None)
    if name is not None:
        return reasons[name]
    first = next(iter(reasons))
    return UsageError(
        f"no form of data fits {path}; as {first}: {reasons[first].message}",
        hint=f"--source NAME tells what is wrong with it as another one of {spelled()}",
        code="unknown-data",
    )
