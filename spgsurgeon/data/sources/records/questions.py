"""Questions that a passage of a text answers, in the form of SQuAD 1.1."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.rows import Rows, places_of
from spgsurgeon.data.sources.records.tables import Table, read_table, texts_of
from spgsurgeon.errors import DataError

ROLES = Roles(
    inputs=({"question": "question", "context": "context"},),
    needed=("question", "context"),
    others={"answers": ("answers",)},
)
"""The roles of columns; `answers` is an object a row: {"text": [...], "answer_start": [...]}."""


class Asked(NamedTuple):
    """What the model reads of a question."""

    question: str
    context: str


class Answers(NamedTuple):
    """The answers that count as right, each a part of the context, and the characters at which they start."""

    texts: tuple[str, ...]
    starts: tuple[int, ...]


def open_questions(source: str, path: str | Path | None, split: str, reading: Reading) -> Rows:
    """Open a split of questions; see `read_table` for what can be read.

    Raises DataError, naming the row, for answers that are not in the context, and for a question without one.
    """
    table = read_table(source, path, split)
    columns, notes = settle_columns(table, reading.columns, ROLES)
    parts = (texts_of(table, columns[role], role) for role in ROLES.needed)
    asked = [Asked(*pair) for pair in zip(*parts, strict=True)]
    given = table.column(columns["answers"], "answers")
    answers = [_answers(table, row, value, asked[row].context) for row, value in enumerate(given)]
    samples = list(zip(asked, answers, strict=True))
    return Rows(f"{path} ({split})", table.path, ("answer",), samples, places_of(table), tuple(notes))


def _answers(table: Table, row: int, value: Any, context: str) -> Answers:
    texts, starts = _lists(table, row, value)
    if not texts:
        _refuse(table, row, "it has no answer", "leave out questions that can't be answered, as SQuAD 2 has them")
    for text, start in zip(texts, starts, strict=True):
        if not text or context[start : start + len(text)] != text:
            _refuse(table, row, f"the context has no {text!a:.60} at character {start}", "answer_start counts from 0")
    return Answers(texts, starts)


def _lists(table: Table, row: int, value: Any) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Return texts and starts of answers, if they have the form that is asked for."""
    parts = [value.get(name) for name in ("text", "answer_start")] if isinstance(value, Mapping) else [None, None]
    texts, starts = (part if isinstance(part, list) else [] for part in parts)
    sound = all(isinstance(text, str) for text in texts) and all(type(start) is int and start >= 0 for start in starts)
    if not all(isinstance(part, list) for part in parts) or len(texts) != len(starts) or not sound:
        form = '{"text": ["..."], "answer_start": [0]}'
        _refuse(table, row, f"answers must be an object such as {form} (got {value!a:.60})", "a .jsonl can hold it")
    return tuple(texts), tuple(starts)


def _refuse(table: Table, row: int, fault: str, hint: str) -> NoReturn:
    raise DataError(f"{table.describe(row)}: {fault}", hint=hint, code="unfit-answer")
