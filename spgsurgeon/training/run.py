"""`spgsurgeon train`: retrain a base or a grafted folder by a recipe, into a run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import read_state, refuse_existing, refuse_overwriting_input
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.loading import ModelRequest
from spgsurgeon.recipe import Recipe, dump_recipe, find_recipe, read_recipe
from spgsurgeon.runs import (
    DATA_FILES,
    FREE_KEYS,
    RECIPE,
    RunFolder,
    check_run,
    differences,
    last_of,
    newest_intact,
    own_run,
    recipe_of,
    records_of,
    stands_on,
    write_files,
)
from spgsurgeon.runtime import (
    Processes,
    choose_precision,
    default_workers,
    environment,
    join_processes,
    known_to_torchrun,
    tell_torchrun,
)
from spgsurgeon.training.assembling import make_retraining, scored_at, switches
from spgsurgeon.training.data import data_folders, open_data
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.plan import plan
from spgsurgeon.training.preparing import Case, prepare
from spgsurgeon.training.progress import Progress
from spgsurgeon.training.state import Counters


def train(
    model: str | None = None,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    output: Path | None = None,
    resume: bool = False,
    dry_run: bool = False,
    random_weights: bool = False,
    weights: str | None = None,
    arch: str | None = None,
    num_classes: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Retrain `model` (else the recipe's) by `recipe` with `overrides`, into the run folder `output`.

    `resume` goes on from the run's last checkpoint, or starts where there is none; its recipe is the run's own, and a
    recipe given all the same must agree with it. It is refused where recipe or data are not those of the run's start.
    `dry_run` checks recipe, model and data against each other, takes one batch through the model and returns the plan.
    `random_weights` starts a model by name from nothing, with as many classes as the data has; `num_classes` gives a
    base with others a new head. A run that fails before its first checkpoint leaves no folder. One process at a time
    may write into a run's folder (under torchrun the first one): `resume` and `force` are refused while another one
    does. Under torchrun each process calls this, and an attempt after the first goes on with the run that an earlier
    one started, as with `resume`.
    Returns the document of `train --json` (on processes other than the first: the same scores).
    """
    output = output or Path("runs") / (Path(recipe).stem if recipe else "run")
    restarted = known_to_torchrun(_name(output)) and output.exists()
    resume = resume or restarted
    started = resume and output.exists()
    settled = _settle(output, model, recipe, overrides, resume=resume, started=started, force=force)
    said: list[str] = []

    def warn(text: str) -> None:
        said.append(text)
        if progress:
            progress.warning(text)

    with switches(settled), join_processes(settled.training.device) as processes, ExitStack() as owned:
        if started and processes.leads and not dry_run:
            owned.enter_context(own_run(output, warn))
        checkpoint = newest_intact(output, warn) if started else None
        data = open_data(settled.data)
        records = records_of(data, settled.data) if processes.leads else {}
        now = stands_on(settled, records)
        before = read_state(checkpoint).get("stands_on") if checkpoint is not None else None
        if checkpoint is not None:
            if processes.leads:
                check_run(output, before, settled, records, warn)
            case = prepare(settled, ModelRequest(str(checkpoint), weights="raw"), resumes=True, data=data)
        else:  # also if the run was killed in its first evaluation
            assert settled.model is not None
            seed = settled.training.seed if random_weights else None
            case = prepare(settled, ModelRequest(settled.model, weights, arch, num_classes, seed), data=data)
            refuse_overwriting_input(output, case.opened.paths())
        if settled.data.eval == settled.data.train:
            note = "data.eval is the split that is trained on: the scores say nothing of other pictures"
            case = replace(case, opened=replace(case.opened, notes=[*case.opened.notes, note]))
        case = replace(case, opened=replace(case.opened, notes=[*case.opened.notes, *said]))
        if restarted:
            note = f"torchrun restarted the processes; {output} was gone on with"
            case = replace(case, opened=replace(case.opened, notes=[*case.opened.notes, note]))
        run = RunFolder(
            output,
            case.config,
            case.manifest,
            companions=case.opened.beside(),
            keep=settled.training.checkpoints.keep,
        )
        with make_retraining(case, processes, run, progress, now) as retraining:
            if dry_run:
                return plan(retraining) | _describe(case, processes, output)
            if checkpoint is not None:
                retraining.resume(checkpoint)
            if not started and processes.leads:
                owned.enter_context(run.create(dump_recipe(settled), force=force))
                tell_torchrun(_name(output))
            if processes.leads and (before != now or not (output / DATA_FILES).exists()):
                write_files(output, records)
            counters = _run(retraining, run, settled, started=started)
            return _document(counters, run, [*case.opened.notes, *retraining.remarks], case)


def _settle(
    output: Path,
    model: str | None,
    recipe: str | Path | None,
    overrides: Sequence[str],
    *,
    resume: bool,
    started: bool,
    force: bool,
) -> Recipe:
    """Return the recipe of the run: its own where it has `started`. Raises UsageError where there is none to be had."""
    if started:
        return _recipe_of_run(output, model, recipe, overrides)
    if resume and recipe is None:
        raise UsageError(f"there is no run {output} to resume", hint="-o names the run folder")
    settled = _settle_recipe(model, recipe, overrides)
    refuse_overwriting_input(output, inputs_of(settled, recipe))
    if os.path.lexists(output) and not force:
        raise UsageError(f"{output} exists", hint="go on with --resume, give another output, or --force to replace it")
    refuse_existing(output, force=force)
    return settled


def inputs_of(recipe: Recipe, source: str | Path | None) -> list[Path]:
    """Return the files and folders that a run by `recipe`, read from `source`, reads: recipe, model and data."""
    paths = [*([Path(recipe.model)] if recipe.model else []), *data_folders(recipe.data)]
    return [path for path in paths if os.path.lexists(path)] + ([find_recipe(source)] if source is not None else [])


def _run(retraining: Retraining, run: RunFolder, recipe: Recipe, *, started: bool) -> Counters:
    """Train to the end, in a folder of which nothing is left where it was not `started` and nothing was saved in it."""
    processes = retraining.processes
    try:
        if processes.leads:
            run.add_start(_start(retraining, recipe))
        processes.wait()
        _check_shared(run.path, processes)
        return retraining.run()
    except Exception as error:
        retraining.close()
        if processes.leads and not started:
            run.discard_unstarted()
        if isinstance(error, DataError) and "unusable" in error.details and run.path.is_dir():
            run.add_unreadable(error.details["unusable"], error.message)
        raise


def _start(retraining: Retraining, recipe: Recipe) -> dict[str, Any]:
    """Return what a start of the run, or its resumption, stands on: all that may be another one than before."""
    workers = default_workers() if recipe.data.workers is None else recipe.data.workers
    data = {"cache": recipe.data.cache, "workers": workers}
    return {"step": retraining.counters.step, "data": data, **environment(retraining.processes)}


def _name(output: Path) -> str:
    return f"spgsurgeon/{output.absolute()}"


def _check_shared(output: Path, processes: Processes) -> None:
    """Raise UsageError where a process can't see the run folder that the first one writes, or sees another one."""
    last = last_of(output)
    there = output.name in os.listdir(output.absolute().parent)  # listing asks a network's file system anew
    if not processes.alike(f"{there} {last.name if last else None}"):
        raise UsageError(
            f"the processes of this run don't see the same folder {output}",
            hint="-o names a folder on a file system that all machines share",
        )


def time_steps(model: str, *, recipe: str | Path, overrides: Sequence[str], count: int) -> float:
    """Return the seconds of a training step of `model` by `recipe` with `overrides`, the mean of `count`.

    Nothing is written.
    """
    settled = _settle_recipe(model, recipe, overrides)
    with switches(settled), join_processes(settled.training.device) as processes:
        case = prepare(settled, ModelRequest(model))
        retraining = make_retraining(case, processes)
        try:
            return retraining.time_steps(count)
        finally:
            retraining.close(at_once=True)


def _settle_recipe(model: str | None, recipe: str | Path | None, overrides: Sequence[str]) -> Recipe:
    if recipe is None:
        raise UsageError("no recipe was given", hint="--recipe FILE; `spgsurgeon recipes ls` lists the shipped ones")
    settled = read_recipe(recipe, overrides)
    settled = settled.model_copy(update={"model": model}) if model else settled
    if settled.model is None:
        raise UsageError("neither the command nor the recipe names a model", hint="spgsurgeon train MODEL --recipe …")
    return settled


def _recipe_of_run(output: Path, model: str | None, recipe: str | Path | None, overrides: Sequence[str]) -> Recipe:
    recipe_of(output)  # says so where it is no run folder
    free = [override for override in overrides if override.partition("=")[0] in FREE_KEYS]
    own = read_recipe(output / RECIPE, free)
    if recipe is not None:
        given = read_recipe(recipe, overrides)
        given = given.model_copy(update={"model": model or given.model})
        found = differences(given, own)
        if found:
            raise UsageError(
                f"the recipe differs from the one that {output} was started with, in {', '.join(found)}",
                hint="leave it out to resume, or start another run with -o",
            )
        return given
    if len(free) < len(overrides) or (model is not None and model != own.model):
        raise UsageError(
            f"a resumed run keeps its model and its recipe, but for {' and '.join(FREE_KEYS)}",
            hint="start another run with -o",
        )
    return own


def _describe(case: Case, processes: Processes, output: Path) -> dict[str, Any]:
    """Return what a run would be of, beside its plan."""
    recipe, data = case.recipe, case.data
    size = case.opened.preprocessing.at(recipe.data.image_size).input_size[1:]
    task = case.opened.task
    return {
        "model": recipe.model,
        "trp": case.manifest.trp,
        "passes": case.grafted.steps if recipe.trp.head_mode == "rollouts" else 1,
        "data": {
            "train": {"name": data.train.name, "samples": len(data.train), "image_size": list(size)},
            "eval": {"name": data.evaluation.name, "samples": len(data.evaluation)} | task.size(scored_at(case)),
            "classes": len(data.train.classes),
        },
        "metric": task.primary.name,
        "epochs": recipe.training.epochs,
        "device": str(processes.device),
        "precision": str(choose_precision(recipe.training.precision, processes.device)).removeprefix("torch."),
        "output": str(output),
        "notes": case.opened.notes,
    }


def _document(counters: Counters, run: RunFolder, notes: list[str], case: Case) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "trp": case.manifest.trp,
        "original": counters.original,
        "best": counters.best,
        "last": counters.last,
        "steps": counters.step,
        "content_hash": run.best_content_hash(),
        "notes": notes,
    }
