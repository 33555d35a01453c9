"""What a model calls the classes of data that have other names there: a table, in a recipe or a file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spgsurgeon.data.renumbering import renumbered
from spgsurgeon.data.sources.source import Source, listing
from spgsurgeon.errors import UsageError

_LARGEST = 16_000_000  # bytes: ten times those of a name of 60 letters for each of 21,841 classes, twice
_FORM = "a line for each class, the data's name, a tab, the model's name"


def read_class_map(table: Mapping[str, str] | str | None) -> dict[str, str] | None:
    """Return the model's name of each class of the data, from a mapping or the path of a file.

    Raises UsageError for a file that is not there, or does not have a line for each class with a tab in it.
    """
    if not isinstance(table, str):
        return None if table is None else dict(table)
    path = Path(table).expanduser()
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            lines = [line.rstrip("\n") for line in file.read(_LARGEST + 1).split("\n")]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"the class map {table} can't be read: {reason}", hint=f"it has {_FORM}") from error
    pairs = [(number, line.split("\t")) for number, line in enumerate(lines, 1) if line.strip()]
    for number, fields in pairs:
        if len(fields) != 2 or not all(field.strip() for field in fields):
            raise UsageError(f"the class map {table}, line {number}: {_FORM}", hint="two fields in each line")
    found = {fields[0].strip(): fields[1].strip() for _, fields in pairs}
    if len(found) < len(pairs) or not found:
        raise UsageError(f"the class map {table} names a class of the data twice, or none", hint=f"it has {_FORM}")
    return found


def renamed(source: Source[Any], table: Mapping[str, str] | None, by: str) -> Source[Any]:
    """Return the data with its classes called as `table` says, by their own name; two of one name become one class.

    `by` is who gave the table. Raises UsageError for a table with none of the data's classes.
    """
    if table is None:
        return source
    strange = [name for name in table if name not in source.classes]
    if len(strange) == len(table):
        raise UsageError(
            f"{by} has none of the classes of {source.name}: it has {listing(strange)}, "
            f"these are {listing(source.classes)}",
            hint="it says, for a class of the data, what the model calls it",
            code="class-map",
        )
    names = [table.get(name, name) for name in source.classes]
    classes = list(dict.fromkeys(names))
    said = [f"{by} also has names that are not classes of the data: {listing(strange, 3)}"] if strange else []
    if len(classes) < len(names):
        said.append(f"{by} makes {len(classes)} classes of {len(names)}")
    return renumbered(source, classes, [classes.index(name) for name in names], said)
