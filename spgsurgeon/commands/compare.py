"""`spgsurgeon compare`: ways to train one model on one's own data, at the same cost, with intervals.

All arms start from the same weights and meet the same batches at a seed, for as many optimizer steps (or seconds).
Each has the same grid of learning rates; the one with the best mean over all seeds, each run's best epoch on a part of
the training split that none is trained on, is chosen for an arm. Only then are the chosen runs, at those epochs, scored
on data.eval.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Any

from spgsurgeon.checkpoint import atomic_file, own_folder, remove_ours, write_json
from spgsurgeon.comparing import (
    COSTS,
    DECODED,
    DOCUMENT,
    FIGURES,
    NO_EARLY_STOPPING,
    OF_DECODED,
    RESULTS,
    SEARCH,
    TABLE,
    Arguments,
    Comparison,
    Grid,
    Lineup,
    arguments_of,
    check_search,
    check_start,
    go_on,
    hire,
    is_comparison,
    line_up,
    markdown,
    place,
    preview,
    read_plan,
    read_results,
    start,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import ModelRequest
from spgsurgeon.runs import add_hyperparameters
from spgsurgeon.runtime import extra_hint, missing
from spgsurgeon.training import decoded_pictures_in

Say = Callable[[str], None]


def compare(
    model: str | None = None,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    arms: Sequence[str] | None = None,
    seeds: int | None = None,
    learning_rates: Grid | None = None,
    budget: str | None = None,
    choosing_seeds: int | None = None,
    jobs: int | None = None,
    output: Path = Path("comparison"),
    resume: bool = False,
    dry_run: bool = False,
    force: bool = False,
    random_weights: bool = False,
    num_classes: int | None = None,
    weights: str | None = None,
    arch: str | None = None,
    task: str | None = None,
    map_keys: str | None = None,
    say: Say = lambda text: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the `arms` (plain and spg) on `model` (else the recipe's) into the folder `output`.

    Returns the document of `compare --json`, which the same arguments give again, and what each arm cost: runs, steps
    and seconds, those of choosing included. `learning_rates` are multiples of the recipe's (0.3, 1, 3), or "auto":
    0.3, 1, 3, and more on either side until the best of each arm has neighbours. `budget` is what arms have as much of:
    "epochs" (the default) or "seconds" on this machine. With one seed instead of five the interval is over the images
    of data.eval instead of over seeds. `choosing_seeds` is how many of the seeds, the first ones, choose learning rates
    (all of them if left out): the others train with the chosen rates alone. `jobs` is the number of processes, by
    default one for each GPU like the first (one if training.device names it by number), else one a core; see `place`.
    `force` replaces an older comparison. `say` is told how it goes. Both `force` and `resume` are refused while another
    process writes into the folder.

    `num_classes`, `weights`, `arch`, `task` and `map_keys` are of the model, see `ModelRequest`: what they make of it
    is kept in the folder, so that a comparison that resumes needs none of them again.

    `resume` resumes a comparison, or starts it. What is left out is as it was started; what is given must agree
    with that, but for a wider grid or "auto", which goes on from the grid before, and more seeds that choose. `dry_run`
    writes nothing: after the same checks it returns, without costs, what the comparison would be and what would become
    of the folder.
    """
    check_start(jobs)
    earlier = read_plan(output) if resume and os.path.lexists(output) else None
    started = arguments_of(earlier, output) if earlier else Arguments()
    given = {"arms": arms, "seeds": seeds, "learning_rates": learning_rates, "budget": budget}
    given["choosing_seeds"] = choosing_seeds
    asked = started.or_rather(model=model, recipe=recipe, overrides=overrides, **given)
    asked.check()
    lineup = _line_up(asked, output, resume=resume, started=earlier is not None)
    if NO_EARLY_STOPPING in lineup.overrides:
        say("no run is stopped early: arms that end at will would not have the same cost")
    base = asked.model or lineup.recipe.model
    if base is None:
        raise UsageError("neither the command nor the recipe names a model", hint="spgsurgeon compare MODEL --recipe …")
    seed = lineup.recipe.training.seed if random_weights else None
    request = ModelRequest(base, weights, arch, num_classes, seed, map_keys=map_keys, task=task)
    placed = place(lineup.recipe.training.device, jobs)
    for note in placed.notes:
        say(note)
    if dry_run:
        found = preview(asked, lineup, earlier, output, request, force=force)
        return found | {"jobs": placed.jobs, "devices": placed.devices}, {}
    with decoded_pictures_in(output / DECODED), hire(placed.jobs, placed.visible) as crew, ExitStack() as owned:
        if earlier is None:
            plan, lock = start(asked, lineup, output, request, force=force, say=say)
            owned.enter_context(lock)
        else:
            owned.enter_context(own_folder(output, say))
            plan = go_on(asked, lineup, read_plan(output), output, request, say)
        document, costs = Comparison(output, lineup, plan, crew, say).run()
        _write(output, document, costs, say)
        remove_ours(output / DECODED, OF_DECODED)
    return document, costs


def _line_up(asked: Arguments, output: Path, *, resume: bool, started: bool) -> Lineup:
    """Return the arms. Raises UsageError if there is no recipe for them."""
    if asked.recipe is None and started:
        hint = "give it again, with --recipe and its overrides"
        raise UsageError(f"{output} does not hold its recipe: an earlier version began it", hint=hint)
    if asked.recipe is None and resume:
        meant = asked.model if asked.model and is_comparison(Path(asked.model)) else None
        hint = f"--resume -o {quote(meant)}" if meant else "-o names its folder"
        raise UsageError(f"there is no comparison {output} to resume", hint=hint)
    if asked.recipe is None:
        hint = "--recipe FILE; `spgsurgeon recipes ls` lists the shipped ones"
        raise UsageError("no recipe was given", hint=hint)
    lineup = line_up(asked.arms, asked.recipe, asked.overrides)
    if SEARCH in asked.arms:
        check_search()
    return lineup


def _add_hyperparameters(output: Path, document: dict[str, Any]) -> None:
    """Let TensorBoard compare the runs by what differs between them."""
    arms, name = document["arms"], f"chosen_on/{document['metric']}"
    for run, result in read_results(output / RESULTS).items():
        if run.arm in arms and result.validation is not None and not missing("tensorboard"):
            rate = arms[run.arm]["learning_rate"] / arms[run.arm]["multiple"] * run.multiple
            settings = {"arm": run.arm, "learning_rate": float(f"{rate:.6g}"), "seed": run.seed}
            settings |= arms[run.arm]["overrides"]
            add_hyperparameters(output / result.folder, settings, {name: result.validation[document["metric"]]})


def _write(output: Path, document: dict[str, Any], costs: dict[str, Any], say: Say) -> None:
    for name, content in ((DOCUMENT, document), (COSTS, costs)):
        with atomic_file(output / name, force=True) as temporary:
            write_json(temporary, content)
    with atomic_file(output / TABLE, force=True) as temporary:
        temporary.write_text(markdown(document, costs), encoding="utf-8")
    _add_hyperparameters(output, document)
    if missing("report"):
        say(f"no figures are drawn: they need the packages of {extra_hint('report')}")
        return
    from spgsurgeon.reporting import comparison_figures

    for name, png in comparison_figures(document).items():
        with atomic_file(output / FIGURES / f"{name}.png", force=True) as temporary:
            temporary.write_bytes(png)
