"""What a run's `state.json` may say: where the run is, its scores, and what its optimizer had as plain numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from spgsurgeon.checkpoint import STATE, Document, Hash, Name, Names, Natural, check_schema, naming, read_state
from spgsurgeon.errors import UsageError
from spgsurgeon.tasks import Scores, task_of

Row = Annotated[list[float], Field(max_length=64)]
Plain = bool | int | Annotated[float, Field(allow_inf_nan=False)] | Name
Numbers = dict[Name, Plain]


def _of_a_task(scores: Scores) -> Scores:
    try:
        task = task_of(scores)
    except (UsageError, TypeError) as error:
        raise ValueError("it names a score of no task") from error
    if task is None:
        raise ValueError("it has the score of no task")
    for metric in task.metrics:
        score = scores.get(metric.name)
        number = isinstance(score, int | float | None) and not isinstance(score, bool)
        if not number or (metric.percent and not -100 <= (score or 0) <= 100):  # a correlation may be negative
            raise ValueError(f"{metric.name} must be a number, of percentages at most 100")
    return scores


Scored = Annotated[dict[str, Any], AfterValidator(_of_a_task)]


class StatisticsDocument(Document):
    """Sums and tables of an epoch's episodes so far; see `training.statistics`."""

    sums: Annotated[list[list[float]], Field(min_length=3, max_length=3)]
    by_class: list[list[Natural]]
    shortest: Annotated[list[Row], Field(max_length=64)]
    longest: Annotated[list[Row], Field(max_length=64)]
    lengths: Annotated[list[list[Natural]], Field(max_length=1)] = Field(default_factory=list)


class CountersDocument(Document):
    """Where the run is; see `training.Counters`, which has no other keys."""

    model_config = Document.model_config | {"extra": "forbid"}

    epoch: Natural
    batch: Natural = 0
    step: Natural
    update: Natural = 0
    head_epochs: Natural = 0
    head_finished: bool = True
    head_loss: float | None = None
    cold_epochs: Natural = 0
    cold_finished: bool = False
    cold_hash: Hash | None = None
    untrained: Literal["head", "all"] | None = None
    original: Scored | None = None
    started: Scored | None = None
    best: Scored | None = None
    last: Scored | None = None
    to_beat: Annotated[float, Field(allow_inf_nan=False)] | None = None
    waited: Natural = 0
    skipped: Natural = 0
    unreadable: dict[str, str] = Field(default_factory=dict)
    statistics: StatisticsDocument | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.head_epochs + self.cold_epochs > self.epoch or self.update > self.step:
            raise ValueError("it counts more head and cold epochs than epochs, or more updates than steps")
        return self


class OptimizerDocument(Document):
    """The optimizer's numbers, by parameter and by group."""

    state: dict[Name, Numbers]
    groups: list[Numbers]


class SplitDocument(Document):
    """What a split was; see `data_records`."""

    classes: Names | None = None
    samples: Natural = 0


class StandsOnDocument(Document):
    """What the run was begun with."""

    recipe: dict[str, Any] | None = None
    data: dict[str, SplitDocument] | None = None


class RunStateDocument(Document):
    """All of it; the hashes are checked by `read_state`."""

    counters: CountersDocument
    optimizer: OptimizerDocument
    scaler: dict[Name, float]
    stands_on: StandsOnDocument | None = None


_SCHEMA = TypeAdapter(RunStateDocument)


def read_run_state(folder: Path) -> dict[str, Any]:
    """Return the `state.json` of a checkpoint of a run. Raises DamagedFileError naming the key that can't be so."""
    state = read_state(folder)
    with naming(folder / STATE):
        check_run_state(state)
    return state


def check_run_state(state: object) -> None:
    """Raise MalformedError naming the key that can't be so."""
    check_schema(_SCHEMA, state)
