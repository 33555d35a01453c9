"""The arms of a comparison: one recipe, and what each arm changes in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spgsurgeon.comparing.lineup.built_in import BUILT_IN, PLAIN
from spgsurgeon.errors import RecipeError, UsageError, did_you_mean
from spgsurgeon.recipe import HOLDOUT, Recipe, read_recipe

DEFAULT_HOLDOUT = 0.2
NO_EARLY_STOPPING = "training.early_stopping.patience=null"
_NEED_REPLICAS = ("spg", "spg-step", "spg-episode", "spg-episode-mean", "no-projection", "rollouts")


@dataclass(frozen=True)
class Arm:
    """One way to train; `changes` has dotted keys of the recipe and their values."""

    name: str
    changes: dict[str, Any]

    @property
    def overrides(self) -> list[str]:
        """The changes as overrides of the recipe."""
        return [f"{key}={json.dumps(value)}" for key, value in self.changes.items()]


@dataclass(frozen=True)
class Lineup:
    """What is compared: the arms, and the recipe that they change, which is what `source` says with `overrides`."""

    source: str
    overrides: tuple[str, ...]
    recipe: Recipe
    arms: tuple[Arm, ...]


def line_up(names: Sequence[str], source: str | Path, overrides: Sequence[str] = ()) -> Lineup:
    """Return the arms of these names, built in or the recipe's own; `plain` is there in any case, and first.

    A part of the training split is held out, whether the recipe says so or not. Raises UsageError if scores would be
    computed on that part too and for names that are unknown or given twice, RecipeError for what the recipe can't take.
    """
    recipe, shared = _with_holdout(source, overrides)
    return Lineup(str(source), shared, recipe, tuple(_settle_arms(names, source, shared, recipe)))


def _with_holdout(source: str | Path, overrides: Sequence[str]) -> tuple[Recipe, tuple[str, ...]]:
    """Return the recipe and the overrides that all arms share."""
    recipe = read_recipe(source, overrides)
    if recipe.data.eval == HOLDOUT:
        raise UsageError(
            "data.eval is the held-out part that learning rates are chosen on, so it can't be scored on too",
            hint="name another split for the scores, as data.eval=test",
        )
    if recipe.data.eval == recipe.data.train:
        raise UsageError(
            f"data.eval is {recipe.data.eval}, the split that is trained on, so scores on it would compare nothing",
            hint="name another split for the scores, as data.eval=test",
        )
    shared = tuple(overrides)
    if recipe.data.holdout is None:
        shared = (*shared, f"data.holdout={DEFAULT_HOLDOUT}")
    if recipe.training.early_stopping.patience is not None:  # arms that end at will have not the same cost
        shared = (*shared, NO_EARLY_STOPPING)
    return read_recipe(source, shared), shared


def _settle_arms(names: Sequence[str], source: str | Path, overrides: Sequence[str], recipe: Recipe) -> list[Arm]:
    own = recipe.compare.arms
    if taken := sorted(own.keys() & BUILT_IN.keys()):
        raise UsageError(f"compare.arms.{taken[0]}: there is a built-in arm of that name", hint="call it otherwise")
    for name in names:
        if name not in BUILT_IN and name not in own:
            known = ", ".join([*BUILT_IN, *own])
            near = did_you_mean(name, [*BUILT_IN, *own])
            raise UsageError(f"there is no arm {name!r}", hint=near or f"there are {known}; compare.arms adds others")
        if names.count(name) > 1:
            raise UsageError(f"arm {name} is given twice")
        if recipe.trp.control and name in _NEED_REPLICAS:
            raise UsageError(
                f"arm {name} would have no replicas, as the recipe has none (trp.kind is {recipe.trp.kind})",
                hint="give a recipe with replicas; the other arms leave them out by themselves",
            )
    ordered = [PLAIN, *(name for name in names if name != PLAIN)]
    arms = [Arm(name, own[name] if name in own else BUILT_IN[name](recipe.trp)) for name in ordered]
    for arm in arms:
        try:
            read_recipe(source, [*overrides, *arm.overrides])
        except RecipeError as error:
            raise RecipeError(f"arm {arm.name}: {error.message}", hint=error.hint, **error.details) from error
    return arms
