"""What a run records of each training sample's episodes, and how it is read back.

The first line says what the samples are, each of the others how long their episodes were in one epoch: 0 for a sample
that was not seen, 1 where the base is wrong, T+1 where all steps are right but perhaps the last.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, ValidationError, model_validator

from spgsurgeon.checkpoint import atomic_file, write_failures
from spgsurgeon.errors import DamagedFileError, UsageError
from spgsurgeon.runs.layout import EPISODES
from spgsurgeon.runs.metrics_log import line_added
from spgsurgeon.runtime import as_json

EPISODE_LENGTHS = "episode_lengths"
"""The key of the lengths in what a run is told of an epoch."""

_SAMPLES = "samples"
_Natural = Annotated[int, Field(ge=0)]


class _Samples(BaseModel):
    """The first line. As an epoch it is number 0, which every resumed run keeps."""

    epoch: Literal[0]
    phase: Literal["samples"]
    names: Annotated[list[str], Field(min_length=1)]
    labels: list[_Natural]

    @model_validator(mode="after")
    def _as_many(self) -> Self:
        if len(self.names) != len(self.labels):
            raise ValueError("it has not as many labels as names")
        return self


class _Epoch(BaseModel):
    epoch: Annotated[int, Field(ge=1)]
    phase: Literal["cold", "train"]
    lengths: list[_Natural]


@dataclass(frozen=True)
class Episodes:
    """The names and labels of the samples, and the lengths of their episodes by epoch of the training proper."""

    names: Sequence[str]
    labels: Sequence[int]
    epochs: Mapping[int, Sequence[int]]

    def steps_of(self, sample: int) -> list[int | None]:
        """Return the step that was accepted for a sample in each epoch, from 0; None if it was not seen."""
        return [lengths[sample] - 1 if lengths[sample] else None for lengths in self.epochs.values()]


@dataclass(frozen=True)
class SampleRecord:
    """What a run accepted for a training sample: its step in each epoch (None if it was not seen), and their mean.

    `first` is the first epoch in which the base itself was right; None if it never was.
    """

    sample: int
    name: str
    label: int
    mean_step: float
    first: int | None
    accepted: Sequence[int | None]


def least_accepted(episodes: Episodes) -> list[SampleRecord]:
    """Return the samples that were seen, the least accepted first: by their mean step, then the latest to be right."""
    records = (_record_of(episodes, sample) for sample in range(len(episodes.names)))
    return sorted((record for record in records if record is not None), key=_rank)


def _record_of(episodes: Episodes, sample: int) -> SampleRecord | None:
    accepted = episodes.steps_of(sample)
    seen = [step for step in accepted if step is not None]
    if not seen:
        return None
    first = next((epoch for epoch, step in zip(episodes.epochs, accepted, strict=True) if step), None)
    name, label = episodes.names[sample], episodes.labels[sample]
    return SampleRecord(sample, name, label, sum(seen) / len(seen), first, accepted)


def _rank(record: SampleRecord) -> tuple[float, float, int]:
    return record.mean_step, -math.inf if record.first is None else -record.first, record.sample


def write_samples(run: Path, names: Sequence[str], labels: Sequence[int]) -> None:
    """Begin the file of a run."""
    with atomic_file(run / EPISODES, force=True) as temporary:
        line = as_json({"epoch": 0, "phase": _SAMPLES, "names": names, "labels": labels})
        temporary.write_text(line + "\n", encoding="utf-8")


def add_lengths(run: Path, metrics: Mapping[str, Any], lengths: Sequence[int]) -> None:
    """Append the line of the epoch that `metrics` are of, all of it or nothing."""
    path, document = run / EPISODES, {key: metrics[key] for key in ("epoch", "phase")} | {"lengths": lengths}
    with write_failures(path), line_added(path, document):
        pass


def read_episodes(run: Path) -> Episodes:
    """Return what a run recorded; of two lines about one epoch the later counts.

    Raises UsageError if it recorded none, DamagedFileError for what no run has written.
    """
    path = run / EPISODES
    if not path.is_file():
        raise UsageError(
            f"{run} has no record of each sample's episodes",
            hint="train with training.record_episodes=true, and replicas of some kind",
            code="no-episodes",
        )
    try:
        first, *others = path.read_text(encoding="utf-8").split("\n")[:-1]  # what follows is being written
        samples = _Samples.model_validate_json(first)
        epochs = [_Epoch.model_validate_json(line) for line in others]
        if any(len(epoch.lengths) != len(samples.names) for epoch in epochs):
            raise ValueError("an epoch is of other samples")
    except (ValidationError, ValueError) as error:
        raise DamagedFileError(f"{path} is damaged: it does not hold the episodes of a run's samples") from error
    lengths = {epoch.epoch: epoch.lengths for epoch in epochs if epoch.phase == "train"}
    return Episodes(samples.names, samples.labels, dict(sorted(lengths.items())))
