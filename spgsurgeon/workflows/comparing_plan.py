"""What a comparison settles before its first run: the arms, the base, the steps, and that all of it fits together."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torchvision
from pydantic import TypeAdapter, ValidationError

from spgsurgeon import __version__
from spgsurgeon.checkpoint.folders import read_json_object
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.writing import atomic_file, write_json, write_safetensors
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.recipe.data_section import HOLDOUT, MASKS
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.training.scoring import METRIC
from spgsurgeon.workflows.comparing_arms import Arm
from spgsurgeon.workflows.comparing_processes import one_thread
from spgsurgeon.workflows.evaluate import check_classes, check_task
from spgsurgeon.workflows.opening import OpenedModel, open_model, state_of
from spgsurgeon.workflows.pictures import open_data
from spgsurgeon.workflows.train import FREE_KEYS, time_steps, train

PLAN, DOCUMENT, COSTS, RESULTS = "compare-plan.json", "compare.json", "costs.json", "results.jsonl"
"""Files of a comparison's folder: how it was started, what it found, what it cost, and a line a run that is done."""
BUDGETS = ("epochs", "seconds")
Grid = Sequence[float] | Literal["auto"]

DEFAULT_HOLDOUT = 0.2
_ROUNDS, _STEPS = 5, 10  # of the trial that tells what a step of each arm costs


@dataclass
class Plan:
    """A comparison, completely described; `recipe` is its recipe with the user's overrides, without the arms'."""

    model: str
    base_hash: str
    recipe: dict[str, Any]
    arms: dict[str, dict[str, Any]]
    seeds: list[int]
    learning_rates: list[float] | str
    budget: str
    versions: dict[str, str]
    metric: str = ""
    chosen_on: str = ""
    scored_on: str = ""
    epochs: dict[str, int] = field(default_factory=dict)
    step_seconds: dict[str, float] | None = None


_ASKED = ("model", "base_hash", "recipe", "arms", "seeds", "budget", "versions")


def versions() -> dict[str, str]:
    """Return the versions that results may depend on."""
    libraries = {"torch": torch, "torchvision": torchvision, "timm": timm, "numpy": np}
    return {"spgsurgeon": __version__, **{name: str(library.__version__) for name, library in libraries.items()}}


def read_settled(source: str | Path, overrides: Sequence[str]) -> tuple[Recipe, list[str]]:
    """Return the recipe and the overrides that all arms share, a held-out part of the training split among them.

    Raises UsageError where scores would be computed on that part too.
    """
    recipe = read_recipe(source, overrides)
    if recipe.data.eval == HOLDOUT:
        raise UsageError(
            "data.eval is the held-out part that learning rates are chosen on, so it can't be scored on too",
            hint="name another split for the scores, as data.eval=test",
        )
    if recipe.data.holdout is not None:
        return recipe, list(overrides)
    shared = [*overrides, f"data.holdout={DEFAULT_HOLDOUT}"]
    return read_recipe(source, shared), shared


def open_base(model: str, recipe: Recipe, *, random_weights: bool, **options: Any) -> OpenedModel:
    """Return the model that all arms start from; a random one has as many classes as the data.

    Raises UsageError where it has other classes or another task than the data.
    """
    train = open_data(recipe.data).train
    classes = len(train.classes)
    if random_weights and options.get("num_classes") is None:
        options["num_classes"] = classes
    opened = open_model(model, random_seed=recipe.training.seed if random_weights else None, **options)
    check_task(opened.task, recipe.data.source in MASKS, model)
    hint = f"the same command with --num-classes {classes} gives it a new, untrained head"
    check_classes(train, opened.identity.num_classes, model, hint=hint)
    return opened


def write_base(folder: Path, opened: OpenedModel) -> None:
    """Write the base as a folder of the Hub's layout, which every run of the comparison reads."""
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", state_of(opened.module))
    write_json(folder / "config.json", opened.config())


def complete(plan: Plan, base: Path, source: str, shared: Sequence[str], arms: Sequence[Arm]) -> None:
    """Fill in what follows from what was asked, after a check that every arm can be trained on the data.

    With a budget of seconds an arm has as many epochs as cost the same, by steps measured here, as plain's.
    """
    recipe = read_recipe(source, shared)
    plan.metric = METRIC["segmentation" if recipe.data.source in MASKS else "classification"]
    scored_on = open_data(recipe.data).evaluation
    plan.scored_on = scored_on.name
    if len(plan.seeds) == 1 and len(scored_on) < 2:
        raise UsageError(
            f"one seed and {len(scored_on)} picture of {scored_on.name} have no spread, hence no interval",
            hint="--seeds 5, or more pictures in data.eval",
        )
    plan.chosen_on = open_data(recipe.data.model_copy(update={"eval": HOLDOUT})).evaluation.name
    for arm in arms:
        chosen = [*shared, *arm.overrides, f"data.eval={HOLDOUT}"]
        with _about(arm, base, plan.model):
            train(str(base), recipe=source, overrides=chosen, output=base.parent / "trial", dry_run=True)
    epochs = recipe.training.epochs
    plan.epochs = {arm.name: epochs for arm in arms}
    if plan.budget == "seconds":
        costs = _step_seconds(base, source, shared, arms)
        first = costs[arms[0].name]
        plan.step_seconds = costs
        plan.epochs = {name: max(1, round(epochs * first / cost)) for name, cost in costs.items()}


@contextmanager
def _about(arm: Arm, base: Path, model: str) -> Iterator[None]:
    """Say in an error which arm it came up with, and call the model as the user does."""
    try:
        yield
    except SurgeonError as error:
        error.message = f"arm {arm.name}: {error.message}".replace(str(base), model)
        raise


def _step_seconds(base: Path, source: str, shared: Sequence[str], arms: Sequence[Arm]) -> dict[str, float]:
    """Return the median seconds of a step of each arm. They take turns, so that a busy machine slows down all."""
    measured: dict[str, list[float]] = {arm.name: [] for arm in arms}
    with one_thread():
        for arm in list(arms) * _ROUNDS:
            chosen = [*shared, *arm.overrides, f"data.eval={HOLDOUT}"]
            measured[arm.name].append(time_steps(str(base), recipe=source, overrides=chosen, count=_STEPS))
    return {name: statistics.median(seconds) for name, seconds in measured.items()}


def read_plan(output: Path) -> Plan:
    """Return the plan of a comparison.

    Raises UsageError where the folder is none, and DamagedFileError where its plan can't be read.
    """
    if not (output / PLAN).is_file():
        raise UsageError(f"{output} is no comparison: it has no {PLAN}", hint="start one without --resume")
    found = read_json_object(output / PLAN)
    try:
        return TypeAdapter(Plan).validate_python(found)
    except ValidationError as error:
        raise DamagedFileError(f"{output / PLAN} is damaged: {error.errors()[0]['loc']} is missing or wrong") from error


def started_plan(asked: Plan, output: Path) -> Plan:
    """Return the plan that a comparison was started with, with the grid that is asked for now.

    Raises UsageError, naming what differs, where it was started otherwise. Only the grid may have become wider, or
    "auto": the runs are the same ones, and more.
    """
    plan = read_plan(output)
    one, other = ({key: asdict(each)[key] for key in _ASKED} for each in (asked, plan))
    differing = [key for key in _differing(one, other) if key.removeprefix("recipe.") not in FREE_KEYS]
    grid, before = asked.learning_rates, plan.learning_rates
    if grid != "auto" and (before == "auto" or not set(grid) >= set(before)):
        differing.append("learning_rates")
    if differing:
        raise UsageError(
            f"{output} was started otherwise: {', '.join(differing)} differ",
            hint="give the arguments that it was started with, or start another comparison with -o",
        )
    if grid != before:
        plan.learning_rates = grid
        with atomic_file(output / PLAN, force=True) as temporary:
            write_json(temporary, asdict(plan))
    return plan


def _differing(one: Any, other: Any, path: str = "") -> list[str]:
    """Return the dotted keys that two documents have other values of."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = dict.fromkeys([*one, *other])
        return [name for key in keys for name in _differing(one.get(key), other.get(key), f"{path}.{key}")]
    return [] if one == other else [path.removeprefix(".")]


def settled_plan(
    model: str, opened: OpenedModel, recipe: Recipe, arms: Sequence[Arm], seeds: int, grid: Grid, budget: str
) -> Plan:
    """Return the plan as it is asked for."""
    first = recipe.training.seed
    return Plan(
        model=model,
        base_hash=content_hash(state_of(opened.module)),
        recipe=recipe.model_dump(mode="json"),
        arms={arm.name: arm.changes for arm in arms},
        seeds=list(range(first, first + seeds)),
        learning_rates=grid if isinstance(grid, str) else sorted(grid),
        budget=budget,
        versions=versions(),
    )
