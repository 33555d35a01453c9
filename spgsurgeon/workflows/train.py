"""`spgsurgeon train`: retrain a base or a grafted folder by a recipe, into a run folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from spgsurgeon.checkpoint.folders import GraftManifest
from spgsurgeon.checkpoint.hashing import layout_hash
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.checkpoint.writing import refuse_overwriting_input
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.identity import Task
from spgsurgeon.models.tracing import meta_twin, run_twin
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import MASKS, DataSection, Recipe
from spgsurgeon.recipe.writing import dump_recipe
from spgsurgeon.training.augmentation import Augmentation, training_transform
from spgsurgeon.training.joint_augmentation import joint_training_transform
from spgsurgeon.training.loader import EvaluationBatches, TrainingBatches, default_workers
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.mask_sources import open_mask_source
from spgsurgeon.training.plan import plan
from spgsurgeon.training.processes import Processes, choose_precision, join_processes
from spgsurgeon.training.progress import Progress
from spgsurgeon.training.run_folder import RunFolder, last_of, recipe_of
from spgsurgeon.training.settings import ColdStart, Objective, Optimizer, Schedule, Settings
from spgsurgeon.training.sources import Source, check_same_classes, open_source
from spgsurgeon.training.state import Counters
from spgsurgeon.trp.grafted import GraftedModel
from spgsurgeon.workflows.evaluate import check_classes, check_task, evaluation_batches
from spgsurgeon.workflows.graft import graft_proven, regraft
from spgsurgeon.workflows.opening import OpenedModel, open_model, state_of
from spgsurgeon.workflows.replicas import Replicas, replicas_from, step_labels


@dataclass(frozen=True)
class _Data:
    train: Source[Any]
    evaluation: Source[Any]


@dataclass(frozen=True)
class _Case:
    """Everything a run starts from, checked together."""

    recipe: Recipe
    data: _Data
    opened: OpenedModel
    grafted: GraftedModel
    manifest: GraftManifest
    config: dict[str, Any]


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
    recipe given all the same must agree with it. `dry_run` checks recipe, model and data against each other, takes one
    batch through the model and returns the plan. `random_weights` starts a model by name from nothing, with as many
    classes as the data has; `num_classes` gives a base with others a new head. A run that fails before its first
    checkpoint leaves no folder. Under torchrun each process calls this.
    Returns the document of `train --json` (on processes other than the first: the same scores).
    """
    output = output or Path("runs") / (Path(recipe).stem if recipe else "run")
    if resume and recipe is None and not output.exists():
        raise UsageError(f"there is no run {output} to resume", hint="-o names the run folder")
    started = resume and output.exists()
    if started:
        settled = _recipe_of_run(output, model, recipe, overrides)
    else:
        settled = _settle_recipe(model, recipe, overrides)
        if os.path.lexists(output) and not force:
            raise UsageError(
                f"{output} exists", hint="go on with --resume, give another output, or --force to replace it"
            )
    with join_processes(settled.training.device) as processes:
        if started and last_of(output):  # there is none if the run was killed in its first evaluation
            case = _prepare(settled, str(output / "last"), weights="raw", resumes=True)
        else:
            assert settled.model is not None
            seed = settled.training.seed if random_weights else None
            case = _prepare(
                settled, settled.model, weights=weights, arch=arch, num_classes=num_classes, random_seed=seed
            )
            own = [Path(recipe)] if recipe is not None and Path(recipe).is_file() else []
            refuse_overwriting_input(output, [*case.opened.paths(), *own])
        run = RunFolder(output, case.config, case.manifest)
        retraining = _retraining(case, processes, run, progress)
        created = False
        try:
            if dry_run:
                return plan(retraining) | _describe(case, processes, output)
            if started:
                retraining.resume()
            elif processes.leads:
                run.create(dump_recipe(settled), force=force)
                created = True
            processes.wait()
            counters = retraining.run()
        except Exception:
            if created:
                run.discard_unstarted()
            raise
        finally:
            retraining.close()
        return _document(output, counters, run, case)


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
    own = read_recipe(output / "recipe.yaml")
    if recipe is not None:
        given = read_recipe(recipe, overrides)
        given = given.model_copy(update={"model": model or given.model})
        if given != own:
            keys = ", ".join(_differing(given, own))
            raise UsageError(
                f"the recipe differs from the one that {output} was started with, in {keys}",
                hint="leave it out to resume, or start another run with -o",
            )
    elif overrides or (model is not None and model != own.model):
        raise UsageError("a resumed run keeps its model and its recipe", hint="start another run with -o")
    return own


def _differing(given: Recipe, own: Recipe) -> list[str]:
    """Return the dotted keys that two recipes have other values of."""

    def values(section: dict[str, Any], path: str = "") -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in section.items():
            found |= values(value, f"{path}{key}.") if isinstance(value, dict) else {f"{path}{key}": value}
        return found

    one, other = values(given.model_dump()), values(own.model_dump())
    return [key for key in one if one[key] != other[key]]


def _prepare(
    recipe: Recipe,
    model: str,
    *,
    weights: str | None,
    arch: str | None = None,
    num_classes: int | None = None,
    random_seed: int | None = None,
    resumes: bool = False,
) -> _Case:
    """Open the data and the model, check them against each other, and graft the model unless it is grafted.

    A plain retraining takes the base of a grafted folder: it is the control of the same command.
    """
    section = recipe.data
    data = _Data(_open_source(section, section.train), _open_source(section, section.eval))
    check_same_classes(data.train, data.evaluation)
    classes = len(data.train.classes)
    wanted = classes if random_seed is not None and num_classes is None else num_classes
    opened = _in_float32(open_model(model, weights=weights, arch=arch, num_classes=wanted, random_seed=random_seed))
    check_task(opened.task, section.source in MASKS, model)
    check_classes(data.train, opened.identity.num_classes, model, hint=_new_head(opened, classes))
    _check_sizes(section, opened)
    opened = replace(opened, label_names=list(data.train.classes))
    if not resumes and (recipe.trp.kind == "none" or not opened.has_replicas):
        proven = graft_proven(opened, _replicas(recipe), head_batch=recipe.trp.head_batch, seed=recipe.training.seed)
        grafted, manifest = proven.grafted, proven.manifest
    else:
        assert opened.manifest is not None
        assert opened.folder is not None
        _check_agreement(recipe, opened.manifest, model)
        temporary = read_safetensors(opened.folder / "temporary.safetensors")[0]
        grafted = regraft(opened, temporary, head_batch=recipe.trp.head_batch)
        manifest = opened.manifest
    manifest = replace(manifest, base=manifest.base | {"layout": layout_hash(state_of(grafted.base))})
    config = opened.config()
    size = section.eval_image_size or section.image_size
    if size is not None:
        channels = opened.preprocessing.input_size[0]
        config["pretrained_cfg"] = config["pretrained_cfg"] | {"input_size": [channels, size, size]}
    return _Case(recipe, data, opened, grafted, manifest, config)


def _open_source(section: DataSection, split: str) -> Source[Any]:
    if section.source in MASKS:
        return open_mask_source(section.source, section.path, split, classes=section.classes, ignore=section.ignore)
    return open_source(section.source, section.path, split)


def _check_sizes(section: DataSection, opened: OpenedModel) -> None:
    """Raise UsageError for pictures of a size that the model can't take, as of a vision transformer's fixed one."""
    channels, *own = opened.preprocessing.input_size
    for key in ("image_size", "eval_image_size"):
        size = getattr(section, key)
        if size is None or [size, size] == own:
            continue
        try:
            run_twin(meta_twin(opened.module), torch.empty(1, channels, size, size, device="meta"))
        except ArchitectureError as error:
            reason = error.message.partition("the model fails: ")[2]
            raise UsageError(
                f"data.{key}: the model can't take pictures of {size} x {size} pixels: {reason}",
                hint=f"leave it out for the model's own {own[0]} x {own[1]}",
            ) from error


def _in_float32(opened: OpenedModel) -> OpenedModel:
    """Return the model with float32 weights: updates of half-precision ones would round to nothing."""
    kinds = {str(p.dtype).removeprefix("torch.") for p in opened.module.parameters()} - {"float32"}
    opened.module.float()
    note = f"{', '.join(sorted(kinds))} weights: trained, and written, as float32"
    return replace(opened, notes=[*opened.notes, note]) if kinds else opened


def _new_head(opened: OpenedModel, classes: int) -> str:
    """Return how to train a model with other classes than the data has."""
    if not opened.has_replicas:
        return f"the same command with --num-classes {classes} gives it a new, untrained head"
    assert opened.manifest is not None
    base = quote(opened.manifest.base["source"])
    return f"graft its base anew, with a new, untrained head: spgsurgeon graft {base} --num-classes {classes} ..."


def _replicas(recipe: Recipe) -> Replicas:
    return Replicas(**recipe.trp.model_dump(exclude={"head_batch"}))


def _check_agreement(recipe: Recipe, manifest: GraftManifest, model: str) -> None:
    """Raise UsageError where the recipe says of the replicas what the grafted folder contradicts."""
    asked, grafted = _replicas(recipe).document(), manifest.trp
    said = {key: value for key, value in asked.items() if key in recipe.trp.model_fields_set and value is not None}
    if said.get("kind", grafted["kind"]) != grafted["kind"]:
        said = {"kind": said["kind"]}  # the settings of another kind are others too
    wrong = {key: value for key, value in said.items() if grafted.get(key) != value}
    if wrong:
        found = "; ".join(f"trp.{key} is {value}, grafted was {grafted.get(key)}" for key, value in wrong.items())
        own = " ".join(f"trp.{key}={grafted[key]}" for key in wrong if key in grafted)
        raise UsageError(
            f"the recipe contradicts {model}: {found}",
            hint=f"go by what was grafted: {own}; or give the base itself and let the recipe graft it",
        )


def _retraining(case: _Case, processes: Processes, run: RunFolder, progress: Progress | None) -> Retraining:
    return Retraining(
        case.grafted,
        settings_of(case.recipe, case.grafted.steps - 1, case.opened.task),
        processes,
        _training_batches(case, processes),
        _evaluation_batches(case, processes),
        num_classes=len(case.data.train.classes),
        step_labels=step_labels(case.opened, replicas_from(case.manifest.trp)),
        run=run,
        progress=progress,
    )


def _training_batches(case: _Case, processes: Processes) -> TrainingBatches:
    data, training = case.recipe.data, case.recipe.training
    make = joint_training_transform if case.opened.task == "segmentation" else training_transform
    augment = data.augment
    augmentation = Augmentation(crop=augment.crop, flip=augment.flip, policy=augment.policy, erase=augment.erase)
    return TrainingBatches(
        case.data.train,
        make(case.opened.preprocessing.at(data.image_size), augmentation),
        batch_size=training.batch_size,
        workers=default_workers() if data.workers is None else data.workers,
        seed=training.seed,
        rank=processes.rank,
        world_size=processes.world_size,
        pin_memory=processes.device.type == "cuda",
    )


def _evaluation_batches(case: _Case, processes: Processes) -> EvaluationBatches:
    data, training = case.recipe.data, case.recipe.training
    return evaluation_batches(
        case.data.evaluation,
        case.opened.preprocessing.at(data.eval_image_size or data.image_size),
        training.eval_batch_size or training.batch_size,
        data.workers,
        processes,
        task=case.opened.task,
    )


def settings_of(recipe: Recipe, replicas: int, task: Task = "classification") -> Settings:
    """Return what the loop is told, from what the recipe says, for a model of `task` with that many replicas."""
    training, objective, cold = recipe.training, recipe.objective, recipe.cold_start
    if replicas and len(objective.weights) != replicas:
        raise UsageError(f"objective.weights has {len(objective.weights)} entries for {replicas} replicas")
    return Settings(
        task=task,
        epochs=training.epochs,
        objective=Objective(
            form=objective.form,
            weights=objective.weights if replicas else (),
            label_smoothing=objective.label_smoothing,
            loss_normalization=objective.loss_normalization,
        ),
        optimizer=Optimizer(**training.optimizer.model_dump()),
        schedule=Schedule(**training.schedule.model_dump()),
        cold_start=ColdStart(
            epochs=cold.epochs,
            until_converged=cold.until == "converged",
            max_epochs=cold.max_epochs,
            tolerance=cold.tolerance,
            freeze_batch_norm=cold.batch_norm == "freeze",
        ),
        gradient_clip=training.gradient_clip,
        accumulate=training.accumulate,
        mixup=recipe.data.augment.mixup,
        cutmix=recipe.data.augment.cutmix,
        ema=training.ema,
        precision=training.precision,
        compile=training.compile,
        checkpoint_steps=training.checkpoint_steps,
        seed=training.seed,
    )


def _describe(case: _Case, processes: Processes, output: Path) -> dict[str, Any]:
    """Return what a run would be of, beside its plan."""
    recipe, data = case.recipe, case.data
    size = case.opened.preprocessing.at(recipe.data.image_size).input_size[1:]
    eval_size = case.opened.preprocessing.at(recipe.data.eval_image_size or recipe.data.image_size).input_size[1:]
    return {
        "model": recipe.model,
        "trp": case.manifest.trp,
        "data": {
            "train": {"name": data.train.name, "samples": len(data.train), "image_size": list(size)},
            "eval": {"name": data.evaluation.name, "samples": len(data.evaluation), "image_size": list(eval_size)},
            "classes": len(data.train.classes),
        },
        "epochs": recipe.training.epochs,
        "device": str(processes.device),
        "precision": str(choose_precision(recipe.training.precision, processes.device)).removeprefix("torch."),
        "output": str(output),
        "notes": case.opened.notes,
    }


def _document(output: Path, counters: Counters, run: RunFolder, case: _Case) -> dict[str, Any]:
    return {
        "run": str(output),
        "trp": case.manifest.trp,
        "original": counters.original,
        "best": counters.best,
        "last": counters.last,
        "steps": counters.step,
        "content_hash": run.best_content_hash(),
        "notes": case.opened.notes,
    }
