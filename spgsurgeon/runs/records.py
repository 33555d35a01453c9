"""What a run recorded about its epochs, read back from metrics.jsonl.

Shapes: T replicas, so an episode has T+1 steps; C classes.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, Field, ValidationError, model_validator

from spgsurgeon.runs.basis import Basis, basis_of
from spgsurgeon.runs.episode_log import SampleRecord
from spgsurgeon.tasks import TASKS, Metric, task_of

Count = Annotated[int, Field(ge=0)]


def _known_scores(scores: Any) -> Any:
    """Return the scores that are metrics of a task, of all that an evaluation has."""
    known = {metric.name for task in TASKS.values() for metric in task.metrics}
    return {name: scores[name] for name in known & scores.keys()} if isinstance(scores, dict) else scores


Evaluation = Annotated[dict[str, float | None], BeforeValidator(_known_scores)]
"""Scores at the end of an epoch; which of them there are goes by the task."""


class Moments(BaseModel):
    """How much an optimizer's moments changed from one cold epoch to the next; None for a moment it does not keep."""

    first_cosine: float | None
    second_change: float | None


class Picture(BaseModel):
    """An image and its episode: `sample` is its index in the training data, `length` 1 to T+1."""

    sample: Count
    name: str
    label: Count
    length: Annotated[int, Field(ge=1)]
    cross_entropy: float
    predicted: Count | None = None
    """The class that the base predicted when it was trained on, if that is known."""


class Pictures(BaseModel):
    """The images of an epoch with the shortest and the longest episodes."""

    shortest: list[Picture]
    longest: list[Picture]


class ByClass(BaseModel):
    """An epoch's evaluation by class: [C] units that were predicted rightly, and all of the class.

    `confusions` are true class, predicted class and how many units, the most frequent first.
    """

    right: list[Count]
    units: list[Count]
    confusions: list[tuple[Count, Count, Count]]

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if len(self.right) != len(self.units) or any(map(operator.gt, self.right, self.units)):
            raise ValueError("more units of a class are right than there are")
        if any(label >= len(self.units) or not self.units[label] for label, _, _ in self.confusions):
            raise ValueError("a class without units is taken for another")
        return self

    @property
    def accuracies(self) -> dict[int, float]:
        """The share of units that are right, percent, by class; without those that have none."""
        both = enumerate(zip(self.right, self.units, strict=True))
        return {label: 100 * right / units for label, (right, units) in both if units}


_PHASES = ("head", "cold", "train")
"""In the order in which they follow each other."""


class EpochRecord(BaseModel):
    """A line of metrics; keys not named here are left out. `epoch` counts from 1 within its phase.

    `valid_share` and `step_cross_entropy` have one entry a step, `accepted_units` one a label, `accepted_by_class` is
    [C][T+1]. `seconds` is the time that the epoch took, `data_seconds` how much of it the loop waited for data;
    `skipped_steps` and `unreadable_pictures` count from the run's start.
    """

    epoch: Annotated[int, Field(ge=1)]
    phase: Literal["head", "cold", "train"]
    loss: float
    step_cross_entropy: Annotated[list[float | None], Field(min_length=1)]
    valid_share: Annotated[list[float], Field(min_length=1)]
    accepted_units: dict[str, int]
    learning_rate: float
    accepted_by_class: list[list[Count]]
    steps: list[str] | None = None
    """What the steps stand for, if that is not what episodes accept."""
    pictures: Pictures
    skipped_steps: Count
    unreadable_pictures: Count
    seconds: float
    data_seconds: float
    images_per_second: float
    peak_memory_bytes: Count
    evaluation: Evaluation | None = None
    by_class: ByClass | None = None
    moments: Moments | None = None

    @model_validator(mode="after")
    def _same_steps_everywhere(self) -> Self:
        steps = {len(self.valid_share), len(self.step_cross_entropy), *map(len, self.accepted_by_class)}
        steps |= set() if self.steps is None else {len(self.steps)}
        if len(steps) > 1:
            raise ValueError("its lists differ in their number of steps")
        return self


@dataclass(frozen=True)
class ShownPicture:
    """An image of the run's last epoch that has some; `jpeg` is a small copy, None if it could not be read.

    `few_pixels` says that the original is no larger than an icon, so that it is shown in squares, not blurred.
    """

    picture: Picture
    shortest: bool
    jpeg: bytes | None = None
    few_pixels: bool = False


@dataclass(frozen=True)
class RunRecord:
    """One run: who it is, how it scored, and what it recorded. `number` counts the runs of a report from 0.

    `accepts` is what a step's label stands for, such as "dropout rate"; None for plain retraining. Scores are those of
    the run's last checkpoint, None if there is none yet; `started` are those after a head start. Of the training
    epochs that were `planned`, after those of a head start and a cold start, `done` have ended; lines about some of
    them may be damaged. `untrained` says what of the model had learned nothing before, "head" or "all".
    """

    number: int
    name: str
    planned: int
    done: int = 0
    head_epochs: int = 0
    cold_epochs: int = 0
    accepts: str | None = None
    original: Mapping[str, Any] | None = None
    started: Mapping[str, Any] | None = None
    untrained: str | None = None
    best: Mapping[str, Any] | None = None
    last: Mapping[str, Any] | None = None
    class_names: Sequence[str] = ()
    stopped_early: bool = False
    """Whether it ended before its last epoch, as its score did not get better any more."""
    tolerance: float | None = None
    """Where the cold start was to stop once its moments had settled: how much they might still change."""
    epochs: Sequence[EpochRecord] = ()
    damaged_lines: Sequence[int] = ()
    """Numbers, from 1, of the lines of metrics that could not be used."""
    head: Mapping[str, str] = field(default_factory=dict)
    """The settings that matter most, in words."""
    settings: Mapping[str, str] = field(default_factory=dict)
    """Every key of the recipe."""
    starts: Sequence[Mapping[str, str]] = ()
    """Versions, devices and flags at each start of the run."""
    notes: Sequence[str] = ()
    """What could not be read, and why."""
    hue: int = 0
    """Which colour it has in a report: that of its arm, if it is a run of a comparison."""
    twin: int = 0
    """How many runs of the same colour came before it."""
    pictures: Sequence[ShownPicture] = ()
    least_accepted: Sequence[SampleRecord] = ()
    """The training samples that it accepted least, if it recorded their episodes."""

    @property
    def metric(self) -> Metric | None:
        """What the run is scored by, None if it has no score yet."""
        found = (task_of(scores) for scores in (self.original, *(epoch.evaluation for epoch in self.epochs)) if scores)
        return next((task.primary for task in found if task), None)

    @property
    def cold(self) -> list[EpochRecord]:
        """The epochs of the cold start."""
        return [epoch for epoch in self.epochs if epoch.phase == "cold"]

    @property
    def trained(self) -> list[EpochRecord]:
        """The epochs of the training proper."""
        return [epoch for epoch in self.epochs if epoch.phase == "train"]

    @property
    def played(self) -> list[EpochRecord]:
        """The epochs that had episodes: all but those of a head start."""
        return [epoch for epoch in self.epochs if epoch.phase != "head"]

    @property
    def best_epoch(self) -> EpochRecord | None:
        """The training epoch with the best score; None if none was scored."""
        metric = self.metric
        scored = [(e.evaluation.get(metric.name), e) for e in self.trained if e.evaluation] if metric else []
        found = [(metric.merit(score), -e.epoch, e) for score, e in scored if score is not None] if metric else []
        return max(found)[2] if found else None

    @property
    def basis(self) -> Basis:
        """What its best score is measured against."""
        return basis_of(self.original, self.started, self.untrained)

    def place(self, epoch: EpochRecord) -> int:
        """Return where an epoch lies on an axis: a training one at its number, those before it at ..., -1, 0."""
        return epoch.epoch - {"head": self.epochs_before, "cold": self.cold_epochs, "train": 0}[epoch.phase]

    @property
    def epochs_before(self) -> int:
        """How many epochs come before the training proper."""
        return self.head_epochs + self.cold_epochs

    def class_name(self, label: int) -> str:
        """Return what a label stands for: its number where there is no name."""
        return self.class_names[label] if label < len(self.class_names) else str(label)


def read_epochs(path: Path) -> tuple[list[EpochRecord], list[int]]:
    """Return the epochs of a file of metrics, in their order, and the numbers of the lines that could not be used.

    No file, no epochs. Of two lines about one epoch the later counts.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    epochs: dict[tuple[str, int], EpochRecord] = {}
    damaged = []
    for number, line in enumerate(lines, start=1):
        try:
            epoch = EpochRecord.model_validate_json(line)
            epochs[epoch.phase, epoch.epoch] = epoch
        except ValidationError:
            damaged.append(number)
    return [epochs[key] for key in sorted(epochs, key=lambda key: (_PHASES.index(key[0]), key[1]))], damaged


def epoch_name(phase: str) -> str:
    """Return what people call an epoch of a phase: epoch, cold epoch, head epoch."""
    return "epoch" if phase == "train" else f"{phase} epoch"


def in_words(epochs: Sequence[EpochRecord]) -> str:
    """Return the names of epochs, as "cold epoch 2 and epochs 1, 3"."""
    numbers: dict[str, list[str]] = {}
    for epoch in epochs:
        numbers.setdefault(epoch_name(epoch.phase), []).append(str(epoch.epoch))
    return " and ".join(f"{name}{'s' if len(found) > 1 else ''} {', '.join(found)}" for name, found in numbers.items())


def step_labels(epoch: EpochRecord) -> list[str]:
    """Return what each of the T+1 steps stands for; numbers where steps share a label."""
    return epoch.steps or length_labels(epoch)


def length_labels(epoch: EpochRecord) -> list[str]:
    """Return what an episode of 1 to T+1 valid steps has accepted; numbers where steps share a label."""
    labels = list(epoch.accepted_units)
    return labels if len(labels) == len(epoch.valid_share) else [str(step) for step in range(len(epoch.valid_share))]
