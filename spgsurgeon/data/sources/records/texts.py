"""Labelled texts: a text, or a pair of them, and its class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.labels import read_labels
from spgsurgeon.data.sources.records.rows import Rows, places_of
from spgsurgeon.data.sources.records.tables import read_table, texts_of

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
class LabelledTexts(Rows):
    """See `Rows`: a sample is a `Text` and its label. `counted` says that the classes were counted off the labels."""

    counted: bool = False

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return np.array([label for _, label in self.samples], dtype=np.int64)


def open_texts(source: str, path: str | Path | None, split: str, reading: Reading) -> LabelledTexts:
    """Open a split of labelled texts; see `read_table` for what can be read."""
    table = read_table(source, path, split)
    columns, notes = settle_columns(table, reading.columns, ROLES)
    numbers, classes, counted = read_labels(table, columns["label"], reading.classes)
    texts = zip(*(texts_of(table, columns[role], role) for role in ("text", "pair") if role in columns), strict=True)
    samples = list(zip(texts, numbers.tolist(), strict=True))
    name = f"{path} ({split})"
    return LabelledTexts(name, table.path, classes, samples, places_of(table), tuple(notes), counted=counted)
