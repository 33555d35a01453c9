"""What a comparison settles before its first run: the arms, the base, the steps, and that all of it fits together."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torchvision
from pydantic import TypeAdapter, ValidationError

from spgsurgeon import __version__
from spgsurgeon.checkpoint import read_json_object
from spgsurgeon.comparing.layout import PLAN
from spgsurgeon.comparing.lineup.arms import Arm, Lineup
from spgsurgeon.comparing.lineup.built_in import PLAIN
from spgsurgeon.comparing.pool import one_thread
from spgsurgeon.comparing.runs import Run, folder_of
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.recipe import HOLDOUT, Recipe, differing
from spgsurgeon.runs import FREE_KEYS
from spgsurgeon.training import open_data, time_steps, train

BUDGETS = ("epochs", "seconds")
Grid = Sequence[float] | Literal["auto"]
FIRST_GRID = (0.3, 1.0, 3.0)
"""Multiples of the recipe's learning rate that a comparison has, or an `auto` one starts with."""

_ROUNDS, _STEPS = 5, 10  # of the trial that tells what a step of each arm costs


@dataclass
class Plan:
    """A comparison, completely described; `recipe` is its recipe with `overrides`, without the arms'.

    `taken_over` are the multiples of an earlier list that an "auto" grid goes on from, `base_seen` how many images of
    each part the base was trained on, where that is known.
    """

    model: str
    base_hash: str
    recipe: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: list[int]
    learning_rates: list[float] | Literal["auto"]
    budget: str
    versions: dict[str, str]
    overrides: list[str] = field(default_factory=list)
    metric: str = ""
    chosen_on: str = ""
    scored_on: str = ""
    epochs: dict[str, int] = field(default_factory=dict)
    step_seconds: dict[str, float] | None = None
    taken_over: list[float] = field(default_factory=list)
    base_seen: dict[str, int] | None = None
    untrained: str | None = None
    """What of the base has learned nothing: "head" or "all"."""
    choosing_seeds: int | None = None
    """How many of the seeds, the first ones, choose learning rates; None for all."""
    data: dict[str, Any] | None = None
    """Summaries of what is trained and scored on, by split; None if an earlier version began it."""

    @property
    def first_multiples(self) -> list[float]:
        """The multiples of the recipe's learning rate that there are or, in an "auto" grid, that it starts with."""
        if not isinstance(self.learning_rates, str):
            return self.learning_rates
        return sorted({folder_of(multiple): multiple for multiple in (*FIRST_GRID, *self.taken_over)}.values())

    @property
    def choosing(self) -> list[int]:
        """The seeds that learning rates are chosen by: the others train with the chosen ones alone."""
        return self.seeds[: self.choosing_seeds]

    def run_count(self, multiples: int) -> int:
        """Return how many runs there are with so many learning rates."""
        choosing = len(self.choosing)
        return len(self.arms) * (multiples * choosing + len(self.seeds) - choosing)

    def has(self, run: Run, multiples: Iterable[float]) -> bool:
        """Return whether a run is one of those that there are with these multiples of the recipe's learning rate."""
        return run.arm in self.arms and run.multiple in multiples and run.seed in self.seeds

    def share_of_plains_time(self, arm: str) -> float | None:
        """Return how long an arm's steps take, as measured before, against plain's; None if epochs are equal."""
        if self.step_seconds is None:
            return None
        seconds = {name: self.step_seconds[name] * self.epochs[name] for name in (arm, PLAIN)}
        return round(seconds[arm] / seconds[PLAIN], 3)


_ASKED = ("model", "base_hash", "recipe", "arms", "seeds", "budget", "versions")


def versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    libraries = {"torch": torch, "torchvision": torchvision, "timm": timm, "numpy": np}
    return {"spgsurgeon": __version__, **{name: str(library.__version__) for name, library in libraries.items()}}


def complete(plan: Plan, base: Path, lineup: Lineup) -> dict[str, dict[str, Any]]:
    """Fill in what follows from what was asked, after a check that every arm can be trained on the data.

    Returns what a run of each arm would be by itself, as `train` says it without doing it.
    With a budget of seconds an arm has as many epochs as cost the same, by steps measured here, as plain's.
    """
    recipe = lineup.recipe
    scored_on = open_data(recipe.data).evaluation
    plan.scored_on = scored_on.name
    if len(plan.seeds) == 1 and len(scored_on) < 2:
        raise UsageError(
            f"one seed and {len(scored_on)} image of {scored_on.name} have no spread, hence no interval",
            hint="--seeds 5, or more images in data.eval",
        )
    plan.chosen_on = open_data(recipe.data.model_copy(update={"eval": HOLDOUT})).evaluation.name
    trials = {}
    for arm in lineup.arms:
        with _about(arm, base, plan.model):
            overrides, trial = _overrides(lineup, arm), base.parent / "trial"
            trials[arm.name] = train(str(base), recipe=lineup.source, overrides=overrides, output=trial, dry_run=True)
    plan.metric, plan.untrained = trials[PLAIN]["metric"], trials[PLAIN]["untrained"]
    epochs = recipe.training.epochs
    plan.epochs = {arm.name: epochs for arm in lineup.arms}
    if plan.budget == "seconds":
        costs = _step_seconds(base, lineup)
        first = costs[lineup.arms[0].name]
        plan.step_seconds = costs
        plan.epochs = {name: max(1, round(epochs * first / cost)) for name, cost in costs.items()}
    return trials


def _overrides(lineup: Lineup, arm: Arm) -> list[str]:
    return [*lineup.overrides, *arm.overrides, f"data.eval={HOLDOUT}"]


@contextmanager
def _about(arm: Arm, base: Path, model: str) -> Iterator[None]:
    """Say in an error which arm it came up with, and call the model as the user does."""
    try:
        yield
    except SurgeonError as error:
        error.message = f"arm {arm.name}: {error.message}".replace(str(base), model)
        raise


def _step_seconds(base: Path, lineup: Lineup) -> dict[str, float]:
    """Return the median seconds of a step of each arm. They take turns, so that a busy machine slows down all."""
    measured: dict[str, list[float]] = {arm.name: [] for arm in lineup.arms}
    with one_thread():
        for arm in lineup.arms * _ROUNDS:
            overrides = _overrides(lineup, arm)
            measured[arm.name].append(time_steps(str(base), recipe=lineup.source, overrides=overrides, count=_STEPS))
    return {name: statistics.median(seconds) for name, seconds in measured.items()}


# Going on with one


def read_plan(output: Path) -> Plan:
    """Return the plan of a comparison.

    Raises UsageError if the folder is none, and DamagedFileError where its plan can't be read.
    """
    if not (output / PLAN).is_file():
        raise UsageError(f"{output} is not a comparison: it has no {PLAN}", hint="start one without --resume")
    found = read_json_object(output / PLAN)
    try:
        return TypeAdapter(Plan).validate_python(found)
    except ValidationError as error:
        raise DamagedFileError(f"{output / PLAN} is damaged: {error.errors()[0]['loc']} is missing or wrong") from error


def started_plan(asked: Plan, earlier: Plan, output: Path) -> Plan:
    """Return the `earlier` plan that the comparison in `output` has, with the grid that is asked for now.

    Raises UsageError, naming what differs, where it was started otherwise. Only the grid may have become wider, or
    "auto", which goes on from it, and more seeds may choose: the runs are the same ones, and more.
    """
    one, other = ({key: asdict(each)[key] for key in _ASKED} for each in (asked, earlier))
    other["recipe"] = _as_written_now(earlier.recipe)
    changed = [key for key in differing(one, other) if key.removeprefix("recipe.") not in FREE_KEYS]
    grid, before = asked.learning_rates, earlier.learning_rates
    if grid != "auto" and (before == "auto" or not set(grid) >= set(before)):
        changed.append("learning_rates")
    if len(asked.choosing) < len(earlier.choosing):
        changed.append("choosing_seeds")
    if changed:
        raise UsageError(
            f"{output} was started otherwise: {', '.join(changed)} differ",
            hint="leave out what it was started with, or start another comparison with -o",
        )
    plan = replace(earlier, choosing_seeds=asked.choosing_seeds)
    if grid == before:
        return plan
    return replace(plan, learning_rates=grid, taken_over=earlier.first_multiples if grid == "auto" else [])


def _as_written_now(recipe: dict[str, Any]) -> dict[str, Any]:
    """Return a recipe with the keys that are written out now, which were others when the comparison was started."""
    try:
        return Recipe.model_validate(recipe).model_dump(mode="json")
    except ValidationError:
        return recipe
