"""The tasks that there are, by name, and their metrics: the only table of either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.tasks.audio_classification import AUDIO_CLASSIFICATION
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.language_modelling import CAUSAL_LM, MASKED_LM
from spgsurgeon.tasks.multiple_choice import MULTIPLE_CHOICE
from spgsurgeon.tasks.question_answering import QUESTION_ANSWERING
from spgsurgeon.tasks.segmentation import SEGMENTATION
from spgsurgeon.tasks.task import METRIC, Task
from spgsurgeon.tasks.text_classification import TEXT_CLASSIFICATION
from spgsurgeon.tasks.token_classification import TOKEN_CLASSIFICATION

_ALL = (
    CLASSIFICATION,
    SEGMENTATION,
    TEXT_CLASSIFICATION,
    QUESTION_ANSWERING,
    CAUSAL_LM,  # before what has one of their other scores in first place, see `task_of`
    MASKED_LM,
    TOKEN_CLASSIFICATION,
    MULTIPLE_CHOICE,
    AUDIO_CLASSIFICATION,
)
TASKS: dict[str, Task] = {task.name: task for task in _ALL}


def task_named(name: str) -> Task:
    """Return the task of this name. Raises UsageError for one that is not known."""
    if name not in TASKS:
        raise UsageError(f"unknown task {name!r}; there are {', '.join(TASKS)}", hint=did_you_mean(name, TASKS))
    return TASKS[name]


def task_scored_by(metric: str) -> Task:
    """Return the task whose runs are compared by the metric of this name, which it has in first place.

    Tasks that share a metric count and judge it alike. Raises UsageError if there is none.
    """
    found = next((task for task in TASKS.values() if task.primary.name == metric), None)
    found = found or next((task for task in TASKS.values() if metric in task.alternatives), None)
    if found is None:
        known = list(dict.fromkeys(name for task in TASKS.values() for name in (task.primary.name, *task.alternatives)))
        raise UsageError(
            f"no task is scored by {metric!r}; there are {', '.join(known)}", hint=did_you_mean(metric, known)
        )
    return found.scored_by(metric)


def task_of(scores: Mapping[str, Any]) -> Task | None:
    """Return the task that scores are of, with the metric first that they name; None for one that is not known."""
    if (metric := scores.get(METRIC)) is not None:
        return task_scored_by(metric)
    return next((task for task in TASKS.values() if scores.get(task.primary.name) is not None), None)
