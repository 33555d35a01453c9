"""`spgsurgeon compare`: ways to train one model on one's own data, at the same cost, with intervals.

All arms start from the same weights and meet the same batches at a seed, for as many optimizer steps (or seconds).
Each has the same grid of learning rates; the one with the best mean over all seeds, each run's best epoch on a part of
the training split that none is trained on, is chosen for an arm. Only then are the chosen runs, at those epochs, scored
on data.eval.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spgsurgeon.checkpoint.writing import (
    atomic_file,
    atomic_folder,
    refuse_existing,
    refuse_overwriting_input,
    write_json,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.reporting.comparison_figures import comparison_figures
from spgsurgeon.reporting.comparison_table import markdown
from spgsurgeon.workflows.comparing_arms import PLAIN, SEARCH, settle_arms
from spgsurgeon.workflows.comparing_choice import FIRST_GRID, Comparison
from spgsurgeon.workflows.comparing_plan import (
    BUDGETS,
    COSTS,
    DOCUMENT,
    PLAN,
    Grid,
    complete,
    open_base,
    read_settled,
    settled_plan,
    started_plan,
    write_base,
)
from spgsurgeon.workflows.comparing_processes import hire
from spgsurgeon.workflows.comparing_runs import folder_of
from spgsurgeon.workflows.pictures import decoded_pictures_in
from spgsurgeon.workflows.searching import check_search

_DECODED, _TABLE = "decoded", "compare.md"

Say = Callable[[str], None]


def compare(
    model: str | None = None,
    *,
    recipe: str | Path,
    overrides: Sequence[str] = (),
    arms: Sequence[str] = (PLAIN, "spg"),
    seeds: int = 5,
    learning_rates: Grid = FIRST_GRID,
    budget: str = "epochs",
    jobs: int | None = None,
    output: Path = Path("comparison"),
    resume: bool = False,
    force: bool = False,
    random_weights: bool = False,
    num_classes: int | None = None,
    weights: str | None = None,
    arch: str | None = None,
    say: Say = lambda text: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the `arms` on `model` (else the recipe's) into the folder `output`.

    Returns the document of `compare --json`, which the same arguments give again, and what each arm cost: runs, steps
    and seconds, those of choosing included. `learning_rates` are multiples of the recipe's, or "auto": 0.3, 1, 3, and
    more on either side until the best of each arm has neighbours. `budget` is what arms have as much of: epochs, or
    seconds on this machine. With one seed the interval is over the pictures of data.eval instead of over seeds. `jobs`
    is the number of processes, by default one for a GPU, else one a core. `resume` goes on with a comparison of the
    same arguments, or of a narrower grid, or starts it; `force` replaces an older one. `say` is told how it goes.
    """
    _check_numbers(seeds, learning_rates, jobs)
    if budget not in BUDGETS:
        raise UsageError(f"{budget!r} is no budget", hint=f"there are {' and '.join(BUDGETS)}")
    settled, shared = read_settled(recipe, overrides)
    chosen_arms = settle_arms(arms, recipe, shared, settled)
    if SEARCH in arms:
        check_search()
    model = model or settled.model
    if model is None:
        raise UsageError("neither the command nor the recipe names a model", hint="spgsurgeon compare MODEL --recipe …")
    resumes = resume and os.path.lexists(output)
    if not resumes:
        refuse_existing(output, force=force)
    options = {"num_classes": num_classes, "weights": weights, "arch": arch}
    opened = open_base(model, settled, random_weights=random_weights, **options)
    for text in opened.notes:
        say(text)
    source = str(recipe)
    refuse_overwriting_input(output, [*opened.paths(), *([Path(recipe)] if Path(recipe).is_file() else [])])
    plan = settled_plan(model, opened, settled, chosen_arms, seeds, learning_rates, budget)
    with decoded_pictures_in(output / _DECODED), hire(jobs or _default_jobs(settled)) as crew:
        if resumes:
            plan = started_plan(plan, output)
        else:
            say(f"check that {', '.join(plan.arms)} can be trained on the data")
            with atomic_folder(output, force=force) as folder:
                write_base(folder / "base", opened)
                with decoded_pictures_in(folder / _DECODED):
                    complete(plan, folder / "base", source, shared, chosen_arms)
                write_json(folder / PLAN, asdict(plan))
        del opened
        comparison = Comparison(output, source, shared, settled, chosen_arms, plan, crew, say)
        document, costs = comparison.run()
    _write(output, document, costs)
    shutil.rmtree(output / _DECODED, ignore_errors=True)
    return document, costs


def _write(output: Path, document: dict[str, Any], costs: dict[str, Any]) -> None:
    for name, content in ((DOCUMENT, document), (COSTS, costs)):
        with atomic_file(output / name, force=True) as temporary:
            write_json(temporary, content)
    with atomic_file(output / _TABLE, force=True) as temporary:
        temporary.write_text(markdown(document, costs), encoding="utf-8")
    for name, png in comparison_figures(document).items():
        with atomic_file(output / "figures" / f"{name}.png", force=True) as temporary:
            temporary.write_bytes(png)


def _check_numbers(seeds: int, learning_rates: Grid, jobs: int | None) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("compare starts its own processes, not under torchrun", hint="--jobs N, without torchrun")
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none to compare", hint="--seeds 5; with 1 the interval is over pictures")
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs can do no run", hint="--jobs 1")
    if isinstance(learning_rates, str):
        return
    names = {folder_of(multiple) for multiple in learning_rates}
    usable = all(math.isfinite(multiple) and multiple > 0 for multiple in learning_rates)
    if not names or not usable or len(names) < len(learning_rates):
        raise UsageError(
            "learning rates are multiples of the recipe's, greater than zero and each given once, to four digits",
            hint="--learning-rates 0.3,1,3 or auto",
        )


def _default_jobs(recipe: Recipe) -> int:
    """Return one for an accelerator, which a run has for itself, else one a core."""
    device = recipe.training.device
    if device != "cpu" and (device != "auto" or torch.accelerator.is_available()):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
