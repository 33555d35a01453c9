"""`spgsurgeon train`: retrain a base or a grafted folder by a recipe, into a run folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from spgsurgeon.checkpoint import atomic_file, refuse_overwriting_input
from spgsurgeon.data import LABELLED
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.loading import ModelRequest
from spgsurgeon.models import Preprocessing
from spgsurgeon.recipe import Recipe, dump_recipe, read_recipe
from spgsurgeon.runs import (
    DATA_FILES,
    EPOCHS,
    RECIPE,
    RunFolder,
    check_run,
    last_of,
    newest_intact,
    own_run,
    read_run_state,
    records_of,
    stands_on,
    trackers_of,
    write_files,
)
from spgsurgeon.runtime import (
    Processes,
    choose_precision,
    default_workers,
    environment,
    extra_hint,
    join_processes,
    known_to_torchrun,
    missing,
    tell_torchrun,
)
from spgsurgeon.training.assembling import make_retraining, scored_at, switches, trained_at, untrained_part
from spgsurgeon.training.data import open_data
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.plan import plan
from spgsurgeon.training.preparing import Case, prepare
from spgsurgeon.training.progress import Progress
from spgsurgeon.training.settling import settle
from spgsurgeon.training.soundness.memory import said_of_memory
from spgsurgeon.training.soundness.samples import looked_at
from spgsurgeon.training.soundness.scales import said_of_crop, said_of_scale
from spgsurgeon.training.state import Counters
from spgsurgeon.training.timing import time_retraining

Warn: TypeAlias = Callable[[str], None]
_TIMED = 2  # steps, of a plan


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
    task: str | None = None,
    map_keys: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Retrain `model` (else the recipe's) by `recipe` with `overrides`, into the run folder `output`.

    `resume` continues from the run's last checkpoint, or starts if there is none; its recipe is the run's own, and a
    recipe given all the same must agree with it. It is refused if recipe or data are not those of the run's start.
    `dry_run` checks recipe, model and data against each other, reads some samples of each split, takes one batch
    through the model and returns the plan.
    `random_weights` starts a model by name from nothing, with as many classes as the data has; `num_classes` gives a
    base with others a new head, `task` a model of transformers one for another task; `map_keys` is for weights with
    others' keys, see `ModelRequest`. A run that fails before its first checkpoint leaves no folder. One process at a
    time may write into a run's folder (under torchrun the first one): `resume` and `force` are refused while another
    one does. Under torchrun each process calls this, and an attempt after the first resumes the run that an earlier one
    started.
    Returns the document of `train --json` (on processes other than the first: the same scores).
    """
    output = output or Path("runs") / (Path(recipe).stem if recipe else "run")
    restarted = known_to_torchrun(_name(output)) and output.exists()
    resume = resume or restarted
    started = resume and output.exists()
    settled = settle(output, model, recipe, overrides, resume=resume, started=started, force=force)
    assert settled.model is not None
    seed = settled.training.seed if random_weights else None
    base = ModelRequest(settled.model, weights, arch, num_classes, seed, map_keys=map_keys, task=task)
    warnings = _Warnings(progress)
    with switches(settled), join_processes(settled.training.device) as processes, ExitStack() as owned:
        if started and processes.leads and not dry_run:
            owned.enter_context(own_run(output, warnings.warn))
        checkpoint = newest_intact(output, warnings.warn) if started else None
        start = _open(output, settled, base, checkpoint, processes, warnings.warn)
        if restarted:
            warnings.said.append(f"torchrun restarted the processes; {output} was resumed")
        if processes.leads and settled.training.loggers is None and missing("tensorboard"):
            warnings.said.append(f"no TensorBoard events are written: {extra_hint('tensorboard')}")
        if started and processes.leads:
            _raise_epochs(output, settled, warnings.warn, dry_run=dry_run)
        case = _with_notes(start.case, warnings.said)
        run = _folder_of(case, output, settled, leads=processes.leads)
        with make_retraining(case, processes, run, progress, start.stands_on) as retraining:
            case = _with_memory(case, retraining, warnings.warn)
            if dry_run:
                planned = plan(retraining) | _describe(case, processes, output)
                return planned | looked_at(case.data, case.opened.notes) | _time(retraining, case.recipe)
            if start.checkpoint is not None:
                retraining.resume(start.checkpoint)
            if not started and processes.leads:
                owned.enter_context(run.create(dump_recipe(case.recipe), force=force))
                tell_torchrun(_name(output))
            if processes.leads and (start.before != start.stands_on or not (output / DATA_FILES).exists()):
                write_files(output, start.records)
            if processes.leads:  # before hours of training, not after
                warnings.tell(case.opened.notes)
            counters = _run(retraining, run, settled, started=started)
            return _document(counters, run, [*case.opened.notes, *retraining.remarks], case)


def _raise_epochs(output: Path, recipe: Recipe, warn: Warn, *, dry_run: bool) -> None:
    """Let the run's own recipe say how many epochs it has now, if these are more than before."""
    own = read_recipe(output / RECIPE)
    before, epochs = own.training.epochs, recipe.training.epochs
    if epochs == before:
        return
    warn(f"{EPOCHS} was {before} and is {epochs} now")
    if not dry_run:
        training = own.training.model_copy(update={"epochs": epochs})
        with atomic_file(output / RECIPE, force=True) as temporary:
            temporary.write_text(dump_recipe(own.model_copy(update={"training": training})), encoding="utf-8")


class _Warnings:
    """Passes warnings on and keeps them in `said`, for the notes; `told` are those that were passed on."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self.said: list[str] = []
        self.told: set[str] = set()

    def warn(self, text: str) -> None:
        self.said.append(text)
        self.told.add(text)
        if self._progress:
            self._progress.warning(text)

    def tell(self, notes: Sequence[str]) -> None:
        """Pass on those notes that were not passed on before."""
        for note in notes:
            if self._progress and note not in self.told:
                self._progress.warning(note)


@dataclass(frozen=True)
class _Start:
    """What a start of a run begins with: of a `checkpoint` if it resumes one, else of the base."""

    case: Case
    checkpoint: Path | None
    records: Mapping[str, Any]
    """What the files of the data are, on the first process."""
    stands_on: dict[str, Any]
    before: dict[str, Any] | None
    """What the checkpoint stood on, if it says so."""


def _open(
    output: Path, recipe: Recipe, base: ModelRequest, checkpoint: Path | None, processes: Processes, warn: Warn
) -> _Start:
    """Open the data and the run's checkpoint, if it has one, else its base, checked against each other."""
    data = open_data(recipe.data)
    records = records_of(data, recipe.data) if processes.leads else {}
    if checkpoint is None:  # also if the run was killed in its first evaluation
        case = prepare(recipe, base, data=data)
        refuse_overwriting_input(output, case.opened.paths())
        return _Start(case, None, records, stands_on(case.recipe, records), None)
    before = read_run_state(checkpoint).get("stands_on")
    if processes.leads:
        check_run(output, before, recipe, records, warn)
    case = prepare(recipe, ModelRequest(str(checkpoint), weights="raw"), resumes=True, data=data)
    return _Start(case, checkpoint, records, stands_on(recipe, records), before)


def _folder_of(case: Case, output: Path, recipe: Recipe, *, leads: bool) -> RunFolder:
    """Return the folder that the run writes; the first process, which `leads`, has trackers too."""
    trackers = trackers_of(recipe.training.loggers, output, recipe.model_dump(mode="json"))
    return RunFolder(
        output,
        case.config,
        case.manifest,
        companions=case.opened.beside(),
        keep=recipe.training.checkpoints.keep,
        trackers=trackers if leads else (),
    )


def _with_notes(case: Case, said: list[str]) -> Case:
    """Return the case with notes on how it is scored and what was `said` before."""
    data = case.recipe.data
    same = "data.eval is the split that is trained on: the scores say nothing about other images"
    of_data = [same] if data.eval == data.train else []
    notes = [*case.opened.notes, *case.data.said, *of_data, *_said_of_sizes(case), *said]
    return replace(case, opened=replace(case.opened, notes=notes))


def _with_memory(case: Case, retraining: Retraining, warn: Warn) -> Case:
    """Return the case with the note on memory that it will not have, which is told before any of it is asked for."""
    said = said_of_memory(retraining.grafted)
    if not said:
        return case
    if retraining.processes.leads:
        warn(said[0])
    return replace(case, opened=replace(case.opened, notes=[*case.opened.notes, *said]))


def _said_of_sizes(case: Case) -> list[str]:
    """Return the notes on what evaluation shows of labelled images that training does not, or otherwise."""
    trained, scored, crop = trained_at(case), scored_at(case), case.recipe.data.augment.crop
    if case.task.samples != LABELLED or not isinstance(trained, Preprocessing) or not isinstance(scored, Preprocessing):
        return []
    chosen = case.recipe.data.eval_crop_pct is not None
    return [*([] if chosen else said_of_crop(crop, scored)), *said_of_scale(crop, trained, scored)]


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
    """Raise UsageError if a process can't see the run folder that the first one writes, or sees another one."""
    last = last_of(output)
    there = output.name in os.listdir(output.absolute().parent)  # listing asks a network's file system anew
    if not processes.alike(f"{there} {last.name if last else None}"):
        raise UsageError(
            f"the processes of this run don't see the same folder {output}",
            hint="-o names a folder on a file system that all machines share",
        )


def _time(retraining: Retraining, recipe: Recipe) -> dict[str, float | None]:
    """Return the seconds of a step, as a few are timed here; None if that would compile or decode everything first."""
    if retraining.settings.compile or recipe.data.cache != "none":
        return {"seconds_per_step": None}
    return {"seconds_per_step": time_retraining(retraining, _TIMED, warm_up=1)}


def _describe(case: Case, processes: Processes, output: Path) -> dict[str, Any]:
    """Return what a run would be of, beside its plan."""
    recipe, data = case.recipe, case.data
    trained, task = trained_at(case), case.task
    size = {"image_size": list(trained.input_size[1:])} if isinstance(trained, Preprocessing) else task.size(trained)
    return {
        "model": recipe.model,
        "trp": case.manifest.trp,
        "passes": case.grafted.steps if recipe.trp.head_mode == "rollouts" else 1,
        "data": {
            "train": {"name": data.train.name, "samples": len(data.train), **size},
            "eval": {"name": data.evaluation.name, "samples": len(data.evaluation)} | task.size(scored_at(case)),
            "classes": len(data.train.classes),
        },
        "task": task.name,
        "untrained": untrained_part(case),
        "metric": task.primary.name,
        "epochs": recipe.training.epochs,
        "device": str(processes.device),
        "precision": str(choose_precision(recipe.training.precision, processes.device)).removeprefix("torch."),
        "output": str(output),
    }


def _document(counters: Counters, run: RunFolder, notes: list[str], case: Case) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "trp": case.manifest.trp,
        "untrained": counters.untrained,
        "original": counters.original,
        "head_start": counters.started,
        "best": counters.best,
        "last": counters.last,
        "steps": counters.step,
        "content_hash": run.best_content_hash(),
        "notes": notes,
    }
