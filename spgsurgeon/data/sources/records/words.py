"""Sentences given in words, each with its label, as for named entities or parts of speech."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.labels import number_labels
from spgsurgeon.data.sources.records.rows import Rows, places_of
from spgsurgeon.data.sources.records.tables import Table, read_table
from spgsurgeon.data.sources.source import Source
from spgsurgeon.errors import DataError

ROLES = Roles(
    inputs=({"words": "tokens"}, {"words": "words"}),
    needed=("words",),
    others={"labels": ("ner_tags", "tags", "labels")},
)
"""The roles of columns; both hold a list a row."""

Words = tuple[str, ...]


@dataclass(frozen=True, eq=False)
class LabelledWords(Rows):
    """See `Rows`: a sample is its words and their labels, int64 [words].

    `counted` says that the classes were counted off the labels, `named` that their names were found there.
    """

    counted: bool = False
    named: bool = False

    def read(self, index: int) -> tuple[Words, NDArray[np.int64]]:
        """See `Source`."""
        words, labels = self.samples[index]
        return words, np.array(labels, dtype=np.int64)

    def naming(self, names: Sequence[str]) -> LabelledWords:
        """Return them with the classes `names`, among which are all of theirs, if theirs were found."""
        if not self.named or tuple(names) == self.classes:
            return self
        numbers = [list(names).index(name) for name in self.classes]
        samples = [(words, tuple(numbers[label] for label in labels)) for words, labels in self.samples]
        return replace(self, classes=tuple(names), samples=samples)


def with_common_names(*parts: Source[Any]) -> list[Source[Any]]:
    """Return splits with the names of classes that were found in any of them, sorted.

    The rarest label of one need not be in another. If the names of any were not found in its labels, all stay as they
    are.
    """
    names = sorted({name for part in parts for name in part.classes})
    if not all(getattr(part, "named", False) for part in parts):
        return list(parts)
    return [with_names(part, names) for part in parts]


def with_names(source: Source[Any], names: Sequence[str]) -> Source[Any]:
    """Return data with the classes `names` if its own were found in its labels and are among them; else as it is."""
    naming: Callable[[Sequence[str]], Source[Any]] | None = getattr(source, "naming", None)
    return naming(names) if naming is not None and set(source.classes) <= set(names) else source


def open_words(source: str, path: str | Path | None, split: str, reading: Reading) -> LabelledWords:
    """Open a split of sentences in words; see `read_table` for what can be read.

    Raises DataError, naming the row, for one that has not as many labels as words, and for a label that is not a class.
    """
    table = read_table(source, path, split)
    columns, notes = settle_columns(table, reading.columns, ROLES)
    words, values = (_lists(table, columns[role], role) for role in ("words", "labels"))
    for row, (own, labels) in enumerate(zip(words, values, strict=True)):
        _check(table, row, own, labels)
    rows = [row for row, labels in enumerate(values) for _ in labels]
    flat = [label for labels in values for label in labels]
    if not flat:
        raise DataError(f"{table.path} has no word", code="unfit-words")
    numbers, classes, counted = number_labels(table, columns["labels"], flat, rows, reading.classes)
    ends = np.cumsum([len(labels) for labels in values])[:-1]
    labels_of = [tuple(part.tolist()) for part in np.split(numbers, ends)]
    found = not counted and reading.classes is None and columns["labels"] not in table.class_names
    return LabelledWords(
        f"{path} ({split})",
        table.path,
        classes,
        list(zip(map(tuple, words), labels_of, strict=True)),
        places_of(table),
        tuple(notes),
        counted=counted,
        named=found,
    )


def _lists(table: Table, column: str, role: str) -> list[list[Any]]:
    found = list(table.column(column, role))
    for row, value in enumerate(found):
        if not isinstance(value, list):
            kind = type(value).__name__
            hint = "a .jsonl can hold lists: " + '{"tokens": ["a", "b"], "tags": ["O", "O"]}'
            raise DataError(f"{table.describe(row)}: {column} is {kind}, not a list", hint=hint, code="unfit-words")
    return found


def _check(table: Table, row: int, words: Sequence[Any], labels: Sequence[Any]) -> None:
    if len(words) != len(labels):
        raise DataError(
            f"{table.describe(row)}: {len(words)} words and {len(labels)} labels",
            hint="each word needs one label",
            code="unfit-words",
        )
    if strange := [word for word in words if not isinstance(word, str)]:
        raise DataError(f"{table.describe(row)}: {strange[0]!a:.60} is not a word", code="unfit-words")
