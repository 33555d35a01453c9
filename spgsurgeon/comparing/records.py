"""A comparison as its folder records it: its document and costs as they were written, or what there is so far."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, Field, FiniteFloat, model_validator

from spgsurgeon.errors import UsageError
from spgsurgeon.runs import Count
from spgsurgeon.tasks import task_scored_by


def _known_metric(name: str) -> str:
    try:
        return task_scored_by(name).primary.name
    except UsageError as error:
        raise ValueError(error.message) from error


class Difference(BaseModel):
    """An arm's difference to plain in points, its intervals, and how many seeds have its sign."""

    mean: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    bootstrap_low: FiniteFloat
    bootstrap_high: FiniteFloat
    detectable: FiniteFloat
    agree: Count


class TriedRate(BaseModel):
    """A learning rate and its mean score on what choices were made on; None if a run broke off."""

    learning_rate: Annotated[FiniteFloat, Field(gt=0)]
    validation: FiniteFloat | None


class ComparedArm(BaseModel):
    """What an arm changes, what was chosen for it, and what it scored, a score a seed."""

    overrides: dict[str, Any]
    multiple: FiniteFloat
    learning_rate: Annotated[FiniteFloat, Field(gt=0)]
    validation: FiniteFloat
    scores: Annotated[list[FiniteFloat], Field(min_length=1)]
    mean: FiniteFloat
    difference: Difference | None
    verdict: Literal["gain", "loss", "no difference shown"] | None
    at_edge: bool
    epochs: Count
    share_of_plains_time: FiniteFloat | None
    broken_off: Count
    learning_rates: Annotated[list[TriedRate], Field(min_length=1)]
    valid_share: list[FiniteFloat] | None


class SeenPictures(BaseModel):
    """How many of the images that choices and scores go by the base was trained on itself."""

    chosen_on: Count
    scored_on: Count


class ComparisonDocument(BaseModel):
    """What of the document of `compare --json` is shown; `multiples` are of the recipe's learning rate."""

    arms: Annotated[dict[str, ComparedArm], Field(min_length=1)]
    original: FiniteFloat
    untrained: str | None = None
    base_seen: SeenPictures | None = None
    seeds: Annotated[list[int], Field(min_length=1)]
    choosing_seeds: list[int] | None = None
    metric: Annotated[str, AfterValidator(_known_metric)]
    chosen_on: str
    scored_on: str
    samples: Count
    budget: str
    grid: list[FiniteFloat] | Literal["auto"]
    multiples: Annotated[list[Annotated[FiniteFloat, Field(gt=0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _as_many_as_there_are(self) -> Self:
        for name, arm in self.arms.items():
            if len(arm.scores) != len(self.seeds) or len(arm.learning_rates) != len(self.multiples):
                raise ValueError(f"arm {name} has other numbers of scores or learning rates than the comparison")
        return self


class ArmCost(BaseModel):
    """What an arm took, the choice of its learning rate included."""

    runs: Count
    steps: Count
    steps_of_choosing: Count
    seconds: FiniteFloat


class ComparisonCosts(BaseModel):
    """What of costs.json is shown."""

    arms: dict[str, ArmCost]


@dataclass(frozen=True)
class Trial:
    """The runs of an arm with one learning rate that are done: how many, their mean score, and how many broke off."""

    learning_rate: float
    done: int
    validation: float | None
    broken_off: int


@dataclass(frozen=True)
class ComparisonRecord:
    """One comparison. `number` counts those of a report from 0; `document` and `costs` are None until it is done.

    `trials` are of the runs that are done by arm, `done` of `planned` in all, where that is known: an auto grid grows.
    `runs` are folders of chosen runs, one of each arm. `facts` are settings in words, `notes` say what can't be read.
    """

    number: int
    name: str
    facts: Mapping[str, str]
    changes: Mapping[str, Mapping[str, Any]]
    seeds: int
    done: int
    planned: int | None
    trials: Mapping[str, Sequence[Trial]]
    document: Mapping[str, Any] | None = None
    costs: Mapping[str, Any] | None = None
    runs: Sequence[str] = ()
    notes: Sequence[str] = ()
    hues: Mapping[str, int] = field(default_factory=dict)
    """Which colour each arm has in a report; they are numbered in their order otherwise."""
