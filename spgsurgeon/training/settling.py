"""Which recipe a run goes by: the one that was given, or that of the run which is resumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from spgsurgeon.checkpoint import refuse_existing, refuse_overwriting_input
from spgsurgeon.data import listing
from spgsurgeon.errors import UsageError
from spgsurgeon.recipe import Recipe, find_recipe, read_recipe
from spgsurgeon.runs import EPOCHS, FREE_KEYS, RECIPE, check_epochs, differences, recipe_of
from spgsurgeon.training.data import data_folders


def settle(
    output: Path,
    model: str | None,
    recipe: str | Path | None,
    overrides: Sequence[str],
    *,
    resume: bool,
    started: bool,
    force: bool,
) -> Recipe:
    """Return the recipe of the run: its own if it has `started`. Raises UsageError if none can be had."""
    if started:
        return _recipe_of_run(output, model, recipe, overrides)
    if resume and recipe is None:
        runs = sorted(str(path.parent) for path in output.absolute().parent.glob(f"*/{RECIPE}"))
        there = f"; in {output.parent} there are {listing([Path(run).name for run in runs])}" if runs else ""
        raise UsageError(
            f"there is no run {output} to resume",
            hint=f"-o RUN names the run's folder{there}",
            code="no-run",
        )
    settled = settle_recipe(model, recipe, overrides)
    refuse_overwriting_input(output, inputs_of(settled, recipe))
    if os.path.lexists(output) and not force:
        raise UsageError(f"{output} exists", hint="--resume continues it, -o names another folder, --force replaces it")
    refuse_existing(output, force=force)
    return settled


def inputs_of(recipe: Recipe, source: str | Path | None) -> list[Path]:
    """Return the files and folders that a run by `recipe`, read from `source`, reads: recipe, model and data."""
    paths = [*([Path(recipe.model)] if recipe.model else []), *data_folders(recipe.data)]
    return [path for path in paths if os.path.lexists(path)] + ([find_recipe(source)] if source is not None else [])


def settle_recipe(model: str | None, recipe: str | Path | None, overrides: Sequence[str]) -> Recipe:
    """Return the recipe of a run that has not started. Raises UsageError if it or its model was not given."""
    if recipe is None:
        raise UsageError("no recipe was given", hint="--recipe FILE; `spgsurgeon recipes ls` lists the shipped ones")
    settled = read_recipe(recipe, overrides)
    settled = settled.model_copy(update={"model": model}) if model else settled
    if settled.model is None:
        raise UsageError("neither the command nor the recipe names a model", hint="spgsurgeon train MODEL --recipe …")
    return settled


def _recipe_of_run(output: Path, model: str | None, recipe: str | Path | None, overrides: Sequence[str]) -> Recipe:
    recipe_of(output)  # says so if it is not a run folder
    free = [override for override in overrides if override.partition("=")[0] in (*FREE_KEYS, EPOCHS)]
    before, own = read_recipe(output / RECIPE), read_recipe(output / RECIPE, free)
    if recipe is not None:
        given = read_recipe(recipe, overrides)
        given = given.model_copy(update={"model": model or given.model})
        if given.head_start.open:  # which it went by the model for
            given = given.model_copy(update={"head_start": own.head_start})
        found = list(differences(given, before))
        if set(found) - {EPOCHS}:
            raise UsageError(
                f"the recipe differs from the one that {output} was started with, in {', '.join(found)}",
                hint="leave it out to resume, or start another run with -o",
            )
        check_epochs(before, given)
        return given
    check_epochs(before, own)
    if len(free) < len(overrides) or (model is not None and model != own.model):
        raise UsageError(
            f"a resumed run keeps its model and its recipe, but for {', '.join(FREE_KEYS)} and a higher {EPOCHS}",
            hint="start another run with -o",
        )
    return own
