"""Scores of classes and what is taken for what: the worst of them, all of them, or the whole matrix."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from spgsurgeon.cli.terminal.text import columns
from spgsurgeon.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from spgsurgeon.tasks import Task

_WORST, _MOST_FREQUENT = 5, 5


def class_tables(document: Mapping[str, Any], task: Task, *, whole: bool) -> list[Table]:
    """Return tables of a score's classes and of its confusions: the worst ones, or the `whole`."""
    found = sorted(document["classes"], key=_accuracy)
    shown = found if whole or len(found) <= _WORST + 1 else found[:_WORST]
    title = "class" if len(shown) == len(found) else f"class (worst {_WORST} of {len(found)})"
    rows = [
        (
            one["class"],
            f"{one['units']:,}",
            _number(one["accuracy"]),
            *(_number(document[metric.name][one["class"]]) for metric in task.by_class),
        )
        for one in shown
    ]
    head = (title, f"{task.unit}s", "accuracy %", *(metric.title for metric in task.by_class))
    tables = [columns(head, rows)]
    confusions = document["confusions"] if whole else document["confusions"][:_MOST_FREQUENT]
    if confusions:
        tables.append(
            columns(
                ("class", "taken for", f"{task.unit}s", "% of the class"),
                [(one["class"], one["predicted"], f"{one['units']:,}", f"{one['percent']:.1f}") for one in confusions],
            )
        )
    return tables


def matrix_as_csv(document: Mapping[str, Any]) -> str:
    """Return the confusion matrix: a row for each true class, a column for each predicted one, both by name.

    Raises UsageError if there is none.
    """
    matrix = document.get("confusion_matrix")
    if matrix is None:
        raise UsageError("there is no confusion matrix for --csv", hint="leave --csv out", code="no-matrix")
    names = [one["class"] for one in document["classes"]]
    text = io.StringIO()
    rows = [[name, *row] for name, row in zip(names, matrix, strict=True)]
    csv.writer(text, lineterminator="\n").writerows([["true \\ predicted", *names], *rows])
    return text.getvalue().rstrip("\n")


def _accuracy(one: Mapping[str, Any]) -> float:
    """Return what classes are sorted by; those without a unit come last."""
    return math.inf if one["accuracy"] is None else one["accuracy"]


def _number(score: float | None) -> str:
    return "not there" if score is None else f"{score:.1f}"
