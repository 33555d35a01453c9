"""Questions with several choices of which one is right, as SWAG and ARC have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.rows import Rows, places_of
from spgsurgeon.data.sources.records.tables import Table, read_table, texts_of
from spgsurgeon.errors import DataError

ROLES = Roles(
    inputs=(
        {"context": "sent1", "start": "sent2", "choices": "endings"},
        {"context": "context", "choices": "endings"},
        {"context": "question", "choices": "choices"},
        {"context": "question", "choices": "endings"},
        {"context": "context", "choices": "choices"},
    ),
    needed=("context", "choices"),
    others={"label": ("label", "answerKey", "answer")},
)
"""The roles of columns: a choice follows the context, after a `start` that all of them have in common."""


class Choices(NamedTuple):
    """What the model reads: the context with each of the choices."""

    context: str
    choices: tuple[str, ...]


def open_choices(source: str, path: str | Path | None, split: str, reading: Reading) -> Rows:
    """Open a split of questions with choices; see `read_table` for what can be read.

    Choices are a list, ARC's object {"text": [...], "label": ["A", ...]}, or the columns ending0, ending1 and so on.
    Raises DataError, naming the row, for one with another number of choices than the first, and for a label that is
    none of them.
    """
    table = _with_endings(read_table(source, path, split))
    columns, notes = settle_columns(table, reading.columns, ROLES)
    contexts = texts_of(table, columns["context"], "context")
    starts = texts_of(table, columns["start"], "start") if "start" in columns else [""] * len(table)
    given = [_choices(table, row, value) for row, value in enumerate(table.column(columns["choices"], "choices"))]
    count = len(given[0][0])
    if count < 2:
        _refuse(table, 0, f"it has {count} choices, and there is nothing to choose from", "two choices or more")
    samples = []
    for row, label in enumerate(table.column(columns["label"], "label")):
        texts, marks = given[row]
        if len(texts) != count:
            _refuse(table, row, f"it has {len(texts)} choices, the first row has {count}", "all need the same number")
        choices = tuple(f"{starts[row]} {text}".strip() for text in texts)
        samples.append((Choices(contexts[row], choices), _label(table, row, label, marks)))
    classes = tuple(map(str, range(count)))
    return Rows(f"{path} ({split})", table.path, classes, samples, places_of(table), tuple(notes))


def _with_endings(table: Table) -> Table:
    """Return the table with a column of lists, if it has the endings in columns of their own."""
    names = [name for number in range(len(table.columns)) if (name := f"ending{number}") in table.columns]
    if not names or "endings" in table.columns:
        return table
    endings = [list(row) for row in zip(*(table.columns[name] for name in names), strict=True)]
    return replace(table, columns={**table.columns, "endings": endings})


def _choices(table: Table, row: int, value: Any) -> tuple[list[str], list[str]]:
    """Return the texts of a row's choices, and what labels call them: numbers from 0, or their own marks."""
    texts = value.get("text") if isinstance(value, Mapping) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        _refuse(table, row, f"choices must be a list of texts (got {value!a:.60})", "a .jsonl can hold it")
    marks = value.get("label") if isinstance(value, Mapping) else list(map(str, range(len(texts))))
    if not isinstance(marks, list) or len(marks) != len(texts):
        _refuse(table, row, "its choices have not a label each", 'as in {"text": ["x", "y"], "label": ["A", "B"]}')
    return texts, list(map(str, marks))


def _label(table: Table, row: int, value: Any, marks: list[str]) -> int:
    if str(value) not in marks:
        named = ", ".join(marks)
        raise DataError(
            f"{table.describe(row)}: the label {value!a:.60} is none of the choices: {named:.60}",
            hint="-1 often means that a split has no labels" if value in (-1, "-1", "") else None,
            code="unknown-label",
        )
    return marks.index(str(value))


def _refuse(table: Table, row: int, fault: str, hint: str) -> NoReturn:
    raise DataError(f"{table.describe(row)}: {fault}", hint=hint, code="unfit-choices")
