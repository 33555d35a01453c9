"""Texts without labels, of which a language model learns to predict the tokens."""

from __future__ import annotations

from pathlib import Path

from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.rows import Rows
from spgsurgeon.data.sources.records.tables import PLAIN, TEXT, read_table, texts_of
from spgsurgeon.errors import DataError

ROLES = Roles(
    inputs=({"text": TEXT}, {"text": "sentence"}, {"text": "content"}, {"text": "document"}),
    needed=("text",),
    others={},
)
"""The role of the column, with the names that data sets have for it."""
UNIT = "token"
"""What has a prediction of its own, and no class: it stands where other data have the names of classes."""


def open_corpus(source: str, path: str | Path | None, split: str, reading: Reading) -> Rows:
    """Open a split of texts; see `read_table` for what can be read. Those that are empty are left out, which is noted.

    Raises DataError if nothing is left.
    """
    table = read_table(source, path, split)
    columns, notes = settle_columns(table, reading.columns, ROLES)
    if table.path.suffix == PLAIN:
        notes = [f"{table.path.name}: each line is a text"]
    texts = texts_of(table, columns["text"], "text")
    kept = [row for row, text in enumerate(texts) if text.strip()]
    if not kept:
        raise DataError(f"{table.path} has {len(texts)} texts, and all of them are empty", code="no-text")
    if empty := len(texts) - len(kept):
        notes = [*notes, f"{empty} of the {len(texts)} texts of {table.path.name} are empty, and were left out"]
    samples = [(texts[row], 0) for row in kept]
    places = [table.describe(row) for row in kept]
    return Rows(f"{path} ({split})", table.path, (UNIT,), samples, places, tuple(notes))
