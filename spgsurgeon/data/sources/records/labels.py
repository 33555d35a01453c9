"""Labels in a column: class numbers, or names of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.class_names import Classes
from spgsurgeon.data.sources.records.tables import Table
from spgsurgeon.data.sources.source import listing
from spgsurgeon.errors import DataError, UsageError

_MOST_CLASSES = 2**20


def read_labels(table: Table, column: str, classes: Classes) -> tuple[NDArray[np.int64], tuple[str, ...], bool]:
    """Return the label of each row, int64 [N], the names of the classes, and whether these were counted off the labels.

    `classes` are names by label, or their number; None takes those that the data says, else names in their order, else
    as many as the highest number asks for. Raises DataError, naming the row, for a label that is none of the classes.
    """
    return number_labels(table, column, list(table.column(column, "label")), range(len(table)), classes)


def number_labels(
    table: Table, column: str, values: Sequence[Any], rows: Sequence[int], classes: Classes
) -> tuple[NDArray[np.int64], tuple[str, ...], bool]:
    """Return the same of the labels `values`, of which a row of the `column` may have several: `rows` says whose."""
    numbers = [_number(value) for value in values]
    names = None if classes is None or isinstance(classes, int) else tuple(classes)
    names = names or table.class_names.get(column)
    if all(number is not None for number in numbers):
        found = np.array(numbers, dtype=np.int64)
        count = classes if isinstance(classes, int) else len(names) if names else int(found.max()) + 1
        _check_range(table, found, rows, count)
        return found, names or tuple(map(str, range(count))), classes is None and names is None
    if isinstance(classes, int):
        raise UsageError(
            f"the labels in {column!r} of {table.path} are names, and data.classes is their number",
            hint="leave data.classes out, or give the names",
        )
    names = names or tuple(sorted({value for value in values if isinstance(value, str)}))
    places = {name: number for number, name in enumerate(names)}
    for row, value in zip(rows, values, strict=True):
        if not isinstance(value, str) or value not in places:
            raise _unknown(table, row, value, f"the classes are {listing(names)}")
    return np.array([places[value] for value in values], dtype=np.int64), names, False


def _number(value: Any) -> int | None:
    if isinstance(value, str) and value.strip().removeprefix("-").isdecimal() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def _check_range(table: Table, labels: NDArray[np.int64], rows: Sequence[int], count: int) -> None:
    if count > _MOST_CLASSES:
        raise _unknown(table, rows[int(labels.argmax())], labels.max(), f"class numbers are below {_MOST_CLASSES:,}")
    for place in np.flatnonzero((labels < 0) | (labels >= count))[:1]:
        raise _unknown(table, rows[place], labels[place], f"there are {count} classes, from 0")


def _unknown(table: Table, row: int, value: Any, known: str) -> DataError:
    hint = "-1 often means that a split has no labels" if value in (-1, "-1") else None
    place = table.describe(row)
    return DataError(f"{place}: the label {value!r} is not a class: {known}", hint=hint, code="unknown-label")
