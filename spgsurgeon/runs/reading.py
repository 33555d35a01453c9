"""A run folder as it is reported: its recipe, its last checkpoint's counters, its epochs, its machines. No weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import CONFIG, MANIFEST, kind_of, naming, read_json_object, read_manifest
from spgsurgeon.errors import DamagedFileError, UsageError
from spgsurgeon.recipe import ObjectiveSection, Recipe, read_recipe
from spgsurgeon.replicas import ReplicaKind
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.runs.checkpoints import last_of, starts_of
from spgsurgeon.runs.episode_log import SampleRecord, least_accepted, read_episodes
from spgsurgeon.runs.layout import ENVIRONMENT, EPISODES, METRICS, RECIPE
from spgsurgeon.runs.records import RunRecord, read_epochs
from spgsurgeon.runs.state_document import read_run_state

_LEAST = 24  # samples that a report lists


@dataclass
class _Checkpoint:
    """What the run's last checkpoint says beside its weights; empty if there is none, or none that can be read."""

    counters: Mapping[str, Any] = field(default_factory=dict)
    trp: Mapping[str, Any] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)


def check_is_run(path: Path) -> None:
    """Raise UsageError if `path` is not a run folder, with the runs that lie in it."""
    if (path / RECIPE).is_file() and kind_of(path) == "run":
        return
    if not path.is_dir():
        found = "is a file" if path.exists() else "does not exist"
        raise UsageError(f"{path} {found}", hint="give run folders, as `spgsurgeon train` writes them")
    inside = sorted(str(recipe.parent) for recipe in path.glob(f"*/{RECIPE}"))
    hint = f"it holds runs: {' '.join(inside[:5])}" if inside else "give a folder that `spgsurgeon train` wrote"
    raise UsageError(f"{path} is not a run folder", hint=hint)


def read_run(path: Path, name: str, number: int) -> RunRecord:
    """Return what the run folder records, without images. What is damaged is said in its notes.

    Raises RecipeError if its recipe does not validate.
    """
    recipe = read_recipe(path / RECIPE)
    notes: list[str] = []
    checkpoint, starts = _read_checkpoint(path, notes), _read_starts(path / ENVIRONMENT, notes)
    epochs, damaged = read_epochs(path / METRICS)
    counters = checkpoint.counters
    # Without a checkpoint that can be read, the lines tell how far it came.
    head_epochs, cold_epochs = (
        counters.get(f"{phase}_epochs", sum(epoch.phase == phase for epoch in epochs)) for phase in ("head", "cold")
    )
    # The replicas of a folder that was grafted need not be in the recipe.
    replicas = replicas_from(checkpoint.trp) if checkpoint.trp else recipe.trp
    cold = recipe.cold_start
    return RunRecord(
        number=number,
        name=name,
        planned=recipe.training.epochs,
        done=counters.get("epoch", len(epochs)) - head_epochs - cold_epochs,
        head_epochs=head_epochs,
        cold_epochs=cold_epochs,
        accepts=replicas.accepts,
        original=counters.get("original"),
        started=counters.get("started"),
        untrained=counters.get("untrained"),
        best=counters.get("best"),
        last=counters.get("last"),
        class_names=checkpoint.class_names,
        stopped_early=_stopped_early(counters, recipe),
        tolerance=cold.tolerance if cold.until == "converged" else None,
        epochs=epochs,
        damaged_lines=damaged,
        head=_head(recipe, replicas) | _device(starts),
        settings=_flat(recipe.model_dump(mode="json")),
        starts=starts,
        least_accepted=_least_accepted(path, notes),
        notes=notes,
    )


def _least_accepted(path: Path, notes: list[str]) -> list[SampleRecord]:
    if not (path / EPISODES).is_file():
        return []
    try:
        return least_accepted(read_episodes(path))[:_LEAST]
    except DamagedFileError as error:
        notes.append(f"{error.message}.")
        return []


def _stopped_early(counters: Mapping[str, Any], recipe: Recipe) -> bool:
    patience = recipe.training.early_stopping.patience
    return patience is not None and counters.get("waited", 0) >= patience


def _read_checkpoint(path: Path, notes: list[str]) -> _Checkpoint:
    try:
        folder = last_of(path)
        if folder is None:
            return _Checkpoint()
        names = read_json_object(folder / CONFIG).get("label_names")
        return _Checkpoint(
            counters=read_run_state(folder)["counters"],
            trp=_checked(read_manifest(folder).trp, folder),
            class_names=[str(label) for label in names] if isinstance(names, list) else [],
        )
    except DamagedFileError as error:
        notes.append(f"The last checkpoint can't be read: {error.message}")
        return _Checkpoint()


def _checked(trp: Mapping[str, Any], folder: Path) -> Mapping[str, Any]:
    """Return what was grafted. Raises DamagedFileError for what no kind of replicas says."""
    with naming(folder / MANIFEST):
        replicas_from(trp)
    return trp


def _read_starts(path: Path, notes: list[str]) -> list[dict[str, str]]:
    if not path.exists():
        return []
    try:
        return [_flat(start) for start in starts_of(path)]
    except DamagedFileError as error:
        notes.append(f"Versions and devices can't be read: {error.message}")
        return []


def _flat(section: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Return a document's values as text, by dotted key."""
    found: dict[str, str] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return found


def _epochs(count: int | None) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"


def _head(recipe: Recipe, replicas: ReplicaKind) -> dict[str, str]:
    """Return the settings that matter most, in words."""
    training, objective, cold, data = recipe.training, recipe.objective, recipe.cold_start, recipe.data
    optimizer, plain = training.optimizer, replicas.control
    facts = {"model": recipe.model or ""}
    rollouts = recipe.trp.head_mode == "rollouts"
    facts["replicas"] = replicas.words() + (", a pass of the whole model for each step" if rollouts else "")
    facts["objective"] = _objective(objective, plain=plain)
    facts["optimizer"] = f"{optimizer.name}, learning rate {optimizer.lr:g}, weight decay {optimizer.weight_decay:g}"
    if (classes := training.class_weights) is not None:
        facts["class weights"] = classes if isinstance(classes, str) else json.dumps(classes, ensure_ascii=False)
    facts["schedule"] = training.schedule.name
    accumulated = f", {training.accumulate} of them a step" if training.accumulate > 1 else ""
    facts["batch size"] = f"{training.batch_size}{accumulated}"
    head = recipe.head_start
    if head.most_epochs:
        many = f"until its loss stops falling, {head.max_epochs} at most" if head.until else _epochs(head.epochs)
        facts["head start"] = many + (" of the head alone" if head.freeze == "body" else "")
    if cold.until or cold.epochs:
        facts["cold start"] = f"until settled, {cold.max_epochs} at most" if cold.until else _epochs(cold.epochs)
    facts["data"] = f"{data.source}, {data.train} and {data.eval}" + (f", in {data.path}" if data.path else "")
    facts["data"] += f", {data.holdout:g} of {data.train} held out" if data.holdout else ""
    facts["data"] += f", at most {data.limit} samples of each class" if data.limit else ""
    facts["data"] += f", scored on {data.eval_limit} at most" if data.eval_limit else ""
    facts["data"] += ", classes balanced" if data.balance else ""
    if data.label_noise.rate:
        facts["wrong labels by design"] = data.label_noise.words
    facts["seed"] = str(training.seed)
    return facts


def _objective(objective: ObjectiveSection, *, plain: bool) -> str:
    loss = f"generalized cross entropy of q {objective.gce:g}" if objective.gce else "cross entropy"
    weights = ", ".join(f"{weight:g}" for weight in objective.weights)
    parts = {
        f"{objective.form}, weights {weights}": not plain,
        loss: plain or objective.gce,
        "normalised": objective.loss_normalization and not plain,
        f"label smoothing {objective.label_smoothing:g}": objective.label_smoothing,
        f"of the {objective.small_loss:g} of each batch with the smallest": objective.small_loss < 1,
        f"R-Drop of alpha {objective.r_drop:g}": objective.r_drop,
    }
    return ", ".join(words for words, said in parts.items() if said)


def _device(starts: list[dict[str, str]]) -> dict[str, str]:
    """Return what the run was last started on, where it says so."""
    if not starts or "device" not in starts[-1]:
        return {}
    torch = starts[-1].get("torch")
    return {"device": starts[-1]["device"] + (f", torch {torch}" if torch else "")}
