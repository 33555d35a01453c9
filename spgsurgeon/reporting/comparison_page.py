"""A comparison as the page shows it: cards, tables and remarks, all of it text."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from spgsurgeon.comparing import COST_HEAD, HEAD, ComparisonRecord, Trial, cost_rows, metric_of, remarks, rows
from spgsurgeon.reporting.palette import arm_colors

_NAME = 0  # the column that names an arm


def comparison_section(record: ComparisonRecord) -> dict[str, Any]:
    """Return what the template shows of a comparison; `cards` and tables are empty if it has no scores yet."""
    document = record.document
    arms = document["arms"] if document else {}
    return {
        "record": record,
        "progress": _progress(record),
        "colors": arm_colors(record),
        "cards": [_card(name, arm, record.seeds) for name, arm in arms.items()],
        "metric": metric_of(document).title if document else "",
        "head": HEAD,
        "rows": rows(document) if document else [],
        "remarks": remarks(document) if document else [],
        "trials": [(name, [_trial(trial, record.seeds) for trial in tried]) for name, tried in record.trials.items()],
        "changes": {name: _changes(changes) for name, changes in record.changes.items()},
        "cost_head": COST_HEAD,
        "costs": {row[_NAME]: row[_NAME + 1 :] for row in cost_rows(record.costs)} if record.costs else {},
        "command": _command(record),
    }


def _progress(record: ComparisonRecord) -> str:
    of = "" if record.planned is None or record.document else f" of {record.planned}"
    state = "" if record.document else ", not finished: scores are computed once all of them are done"
    return f"{record.done}{of} runs done{state}"


def _card(name: str, arm: Mapping[str, Any], seeds: int) -> dict[str, str]:
    difference = arm["difference"]
    if difference is None:
        return {"name": name, "score": f"{arm['mean']:.2f}", "verdict": "", "said": ""}
    agree = f", {difference['agree']} of {seeds} seeds agree" if seeds > 1 else ""
    said = f"{difference['mean']:+.2f} points, {difference['low']:+.2f} to {difference['high']:+.2f}{agree}"
    return {"name": name, "score": f"{arm['mean']:.2f}", "verdict": arm["verdict"], "said": said}


def _trial(trial: Trial, seeds: int) -> tuple[str, str, str]:
    score = "-" if trial.validation is None else f"{trial.validation:.2f}"
    broken = f", {trial.broken_off} broken off" if trial.broken_off else ""
    return f"{trial.learning_rate:g}", score, f"{trial.done} of {seeds}{broken}"


def _changes(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in changes.items()) or "nothing"


def _command(record: ComparisonRecord) -> str | None:
    """Return the command that shows a chosen run of each arm beside the comparison."""
    return shlex.join(["spgsurgeon", "report", *record.runs]) if record.runs else None
