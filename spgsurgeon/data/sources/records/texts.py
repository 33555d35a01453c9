"""Labelled texts: a text, or a pair of them, and its class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.labels import read_labels
from spgsurgeon.data.sources.records.tables import read_table, texts_of
from spgsurgeon.data.sources.source import short_hash

ROLES = Roles(
    inputs=(
        {"text": "text", "pair": "pair"},
        {"text": "sentence1", "pair": "sentence2"},
        {"text": "question", "pair": "sentence"},
        {"text": "question1", "pair": "question2"},
        {"text": "premise", "pair": "hypothesis"},
        {"text": "text"},
        {"text": "sentence"},
    ),
    needed=("text",),
    others={"label": ("label", "labels")},
)
"""The roles of columns, with the names that GLUE and others have for them."""

Text = tuple[str, ...]
"""One text, or two that are read together."""


@dataclass(frozen=True, eq=False)
class LabelledTexts:
    """See `ImageSource`; what is read is a `Text`. `counted` says that the classes were counted off the labels."""

    name: str
    path: Path
    texts: Sequence[Text]
    numbers: NDArray[np.int64]
    classes: tuple[str, ...]
    counted: bool
    places: Sequence[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts)

    def read(self, index: int) -> tuple[Text, int]:
        """See `Source`."""
        return self.texts[index], int(self.numbers[index])

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.numbers

    def describe(self, index: int) -> str:
        """See `Source`."""
        return self.places[index]

    def file_paths(self) -> Iterable[Path]:
        """See `Source`."""
        return [self.path] if self.path.is_file() else sorted(self.path.glob("*.arrow"))

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [short_hash(repr(self.texts).encode("utf-8", "backslashreplace")), short_hash(self.numbers.tobytes())]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return self.marks()

    def counting(self, number: int) -> LabelledTexts:
        """Return them with `number` classes, if they were counted."""
        return replace(self, classes=tuple(map(str, range(number)))) if self.counted else self


def open_texts(source: str, path: str | Path | None, split: str, reading: Reading) -> LabelledTexts:
    """Open a split of labelled texts; see `read_table` for what can be read."""
    table = read_table(source, path, split)
    columns, notes = settle_columns(table, reading.columns, ROLES)
    numbers, classes, counted = read_labels(table, columns["label"], reading.classes)
    texts = zip(*(texts_of(table, columns[role], role) for role in ("text", "pair") if role in columns), strict=True)
    places = [table.describe(row) for row in range(len(table))]
    name = f"{path} ({split})"
    return LabelledTexts(name, table.path, list(texts), numbers, classes, counted, places, tuple(notes))
