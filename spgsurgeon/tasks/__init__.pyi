from .confusion import MOST_CLASSES, Confusions
from .metrics import LOSS, Metric
from .registry import TASKS, task_named, task_of, task_scored_by
from .task import METRIC, Scores, Tally, Task

__all__ = [
    "LOSS",
    "METRIC",
    "MOST_CLASSES",
    "TASKS",
    "Confusions",
    "Metric",
    "Scores",
    "Tally",
    "Task",
    "task_named",
    "task_of",
    "task_scored_by",
]
