"""What a comparison is asked for: by the user or, where that says nothing, by how it was started."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spgsurgeon.comparing.layout import RECIPE
from spgsurgeon.comparing.lineup.arms import Lineup
from spgsurgeon.comparing.lineup.built_in import PLAIN
from spgsurgeon.comparing.plan import BUDGETS, FIRST_GRID, Grid, Plan, versions
from spgsurgeon.comparing.runs import folder_of
from spgsurgeon.errors import UsageError


@dataclass(frozen=True)
class Arguments:
    """The arguments of `compare` that its results depend on; the defaults are those of a new comparison."""

    model: str | None = None
    recipe: str | Path | None = None
    overrides: Sequence[str] = ()
    arms: Sequence[str] = (PLAIN, "spg")
    seeds: int = 5
    learning_rates: Grid = FIRST_GRID
    budget: str = "epochs"
    choosing_seeds: int | None = None
    """How many of the seeds choose learning rates; None for all."""
    names_the_base: bool = True
    """Whether the model is the user's word, and not only what it was called when the comparison was started."""

    def or_rather(self, *, overrides: Sequence[str], **given: Any) -> Arguments:
        """Return these with what is given, which is not None, instead. Overrides are of the recipe given with them."""
        if given["recipe"] is None:
            overrides = (*self.overrides, *overrides)
        given = {key: value for key, value in given.items() if value is not None}
        return replace(self, overrides=overrides, names_the_base="model" in given, **given)

    def check(self) -> None:
        """Raise UsageError for what no comparison can have."""
        if self.seeds < 1:
            hint = "--seeds 5; with 1 the interval is over images"
            raise UsageError(f"{self.seeds} seeds are none to compare", hint=hint)
        if self.choosing_seeds is not None and not 1 <= self.choosing_seeds <= self.seeds:
            raise UsageError(
                f"--choosing-seeds must be from 1 to the number of seeds, {self.seeds} (got {self.choosing_seeds})"
            )
        if self.budget not in BUDGETS:
            raise UsageError(f"{self.budget!r} is not a budget", hint=f"there are {' and '.join(BUDGETS)}")
        if not isinstance(self.learning_rates, str):
            _check_multiples(self.learning_rates)

    def plan(self, lineup: Lineup, model: str, base_hash: str) -> Plan:
        """Return the plan as it is asked for, before anything that follows from it."""
        first, grid = lineup.recipe.training.seed, self.learning_rates
        return Plan(
            model=model,
            base_hash=base_hash,
            recipe=lineup.recipe.model_dump(mode="json"),
            arms={arm.name: arm.changes for arm in lineup.arms},
            seeds=list(range(first, first + self.seeds)),
            learning_rates=grid if isinstance(grid, str) else sorted(grid),
            budget=self.budget,
            versions=versions(),
            overrides=list(lineup.overrides),
            choosing_seeds=self.choosing_seeds,
        )


def _check_multiples(multiples: Sequence[float]) -> None:
    names = {folder_of(multiple) for multiple in multiples}
    usable = all(math.isfinite(multiple) and multiple > 0 for multiple in multiples)
    if not names or not usable or len(names) < len(multiples):
        raise UsageError(
            "learning rates are multiples of the recipe's, greater than zero and each given once, to four digits",
            hint="--learning-rates 0.3,1,3 or auto",
        )


def arguments_of(plan: Plan, output: Path) -> Arguments:
    """Return what the comparison in `output` was started with; no recipe where an earlier version did not keep it."""
    recipe = output / RECIPE
    return Arguments(
        model=plan.model,
        recipe=recipe if recipe.is_file() else None,
        overrides=plan.overrides,
        arms=list(plan.arms),
        seeds=len(plan.seeds),
        learning_rates=plan.learning_rates,
        budget=plan.budget,
        choosing_seeds=plan.choosing_seeds,
    )


def check_start(jobs: int | None) -> None:
    """Raise UsageError if this process can't lead a comparison of so many runs at a time."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("compare starts its own processes, not under torchrun", hint="--jobs N, without torchrun")
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs can do no run", hint="--jobs 1")
