"""The tasks that there are, by name, and their metrics: the only table of either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.segmentation import SEGMENTATION
from spgsurgeon.tasks.task import Task

TASKS: dict[str, Task] = {task.name: task for task in (CLASSIFICATION, SEGMENTATION)}


def task_named(name: str) -> Task:
    """Return the task of this name. Raises UsageError for one that is not known."""
    if name not in TASKS:
        raise UsageError(f"unknown task {name!r}; there are {', '.join(TASKS)}", hint=did_you_mean(name, TASKS))
    return TASKS[name]


def task_scored_by(metric: str) -> Task:
    """Return the task whose runs are compared by the metric of this name. Raises UsageError where none is."""
    primary = {task.primary.name: task for task in TASKS.values()}
    if metric not in primary:
        raise UsageError(
            f"no task is scored by {metric!r}; there are {', '.join(primary)}", hint=did_you_mean(metric, primary)
        )
    return primary[metric]


def task_of(scores: Mapping[str, Any]) -> Task | None:
    """Return the task that scores are of, None where they are of none that is known."""
    return next((task for task in TASKS.values() if scores.get(task.primary.name) is not None), None)
