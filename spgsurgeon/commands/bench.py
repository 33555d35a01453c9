"""`spgsurgeon bench`: what a training step costs with replicas against without, and by other ways to take it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_map

from spgsurgeon.benchmarking import (
    GRAFTED,
    PLAIN,
    TIMM,
    TRAINER,
    Arm,
    Blocks,
    Subject,
    measure,
    own_arm,
    processor_ratio,
    rate,
    says_what_does_not_fit,
    settle_arms,
    settle_subject,
    steps_that_last,
    throughput_ratio,
    time_blocks,
    time_loader,
    timm_arm,
    trainer_arm,
    unused_without_data,
    with_likely_targets,
)
from spgsurgeon.data import Batch
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import ModelRequest
from spgsurgeon.models import IMAGES
from spgsurgeon.recipe import Recipe, TrainingSection
from spgsurgeon.runtime import (
    Processes,
    choose_deterministic_workspace,
    choose_device,
    choose_precision,
    current_device,
    environment,
    fastest_convolutions,
    tf32_products,
)
from spgsurgeon.training import Case, Retraining, make_retraining

FEWEST_BLOCKS = 20
"""With fewer, an interval says little."""
_WARM_UP = 3  # steps of each arm, after its first, before any is counted or timed
_OF_OTHERS: dict[str, Callable[[Case, Processes, list[Batch]], Arm]] = {TIMM: timm_arm, TRAINER: trainer_arm}
_ALSO = ((GRAFTED, "rollouts"), ("deterministic", GRAFTED), (PLAIN, TIMM), (PLAIN, TRAINER))
"""Compared besides all others with plain."""


def bench(
    model: str,
    *,
    recipe: str | Path | None = None,
    overrides: Sequence[str] = (),
    arms: Sequence[str] = (PLAIN, GRAFTED),
    data: str | None = None,
    blocks: int = FEWEST_BLOCKS,
    steps: int | None = None,
    threads: int | None = None,
    weights: str | None = None,
    arch: str | None = None,
    num_classes: int | None = None,
    task: str | None = None,
    map_keys: str | None = None,
) -> dict[str, Any]:
    """Time training steps of `model` plainly, grafted and by further `arms` in turn; return `bench --json`'s document.

    The steps are those that `train` takes by `recipe` with `overrides` (without a recipe: by its defaults), over and
    over on one batch that lies on the device, at a learning rate so small that weights stay. A model by name has random
    weights: speed does not depend on them. `arms` are keys of `bench_arms.CHANGES`. A block takes `steps` steps (None:
    as many as last a quarter of a second). `threads` are torch's, for the CPU.
    `weights`, `arch`, `num_classes`, `task` and `map_keys` are of the model, see `ModelRequest`.

    `data` is a folder of images, `digits`, the name of a data set, or `recipe` for what that says: steps that its
    loader feeds are then timed against those that nothing must be read for. Without it the images are noise, and so
    are the tokens of a language model, which are to be predicted as it does: its later steps read only tokens that were
    right before, and `settings` has their share, `valid_share`.

    Raises UsageError for unknown arms, for fewer than 20 blocks and for what `train` refuses, SurgeonError where an arm
    does not fit in the device's memory.
    """
    names = settle_arms(arms)
    if blocks < FEWEST_BLOCKS:
        raise UsageError(f"{blocks} blocks are too few for an interval", hint=f"--blocks {FEWEST_BLOCKS} or more")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise UsageError("bench measures one process", hint="start it without torchrun")
    request = ModelRequest(model, weights, arch, num_classes, map_keys=map_keys, task=task)
    subject = settle_subject(request, recipe, overrides, data)
    training = subject.recipe.training
    images = training.batch_size * training.accumulate
    processes = Processes(0, 1, choose_device(training.device))
    with _switches(training, threads), current_device(processes.device):
        recipes = {name: subject.recipe_of(name) for name in names}
        if any(recipe.training.deterministic for recipe in recipes.values()):
            choose_deterministic_workspace()  # before the first arm computes anything
        case = subject.case(recipes[GRAFTED])
        retraining = make_retraining(case, processes)
        parts = _resident_parts(retraining)
        if data is None and subject.task.deferred:
            parts = with_likely_targets(parts, subject.task, retraining.grafted)
        shares = _valid_shares(retraining, parts[0])
        made: dict[str, Arm] = {}
        documents: dict[str, dict[str, Any]] = {}
        for name, own in recipes.items():
            with says_what_does_not_fit(name):
                made[name] = _arm(name, own, subject, retraining, parts)
            documents[name] = _start(made[name])
        steps = steps or steps_that_last(made[PLAIN].seconds(1).wall)
        timed = time_blocks({name: partial(arm.seconds, steps) for name, arm in made.items()}, blocks)
        for name, document in documents.items():
            documents[name] = {"images_per_second": rate(timed, name, steps * images), **document}
        ratios = _ratios(timed, names, by_processor=processes.device.type == "cpu")
        document = _describe(subject, case, processes, parts) | documents
        if subject.task.deferred:
            document["settings"]["valid_share"] = shares
        document |= {"ratio": {key: ratios[0][key] for key in ("median", "low", "high")}, "ratios": ratios}
        if data is not None:
            document["end_to_end"] = time_loader(
                made[GRAFTED], retraining, images=images, blocks=blocks, steps=steps, workers=subject.workers
            )
        notes = [*case.opened.notes, *(unused_without_data(overrides) if data is None else ())]
        return document | {"blocks": blocks, "steps": steps, "notes": notes}


def _resident_parts(retraining: Retraining) -> list[Batch]:
    """Return the batches of one step, read once and moved to the device."""
    batches, device = retraining.batches, retraining.processes.device
    try:
        read = islice(batches.epoch(0), retraining.settings.accumulate)
        return [tree_map(lambda tensor: tensor.to(device), batch) for batch in read]
    finally:
        batches.close()


def _valid_shares(retraining: Retraining, batch: Batch) -> list[float]:
    """Return the share of a batch's units whose episode is still running, at each step."""
    sizes = retraining.try_batch(batch).step_sizes
    return (sizes / sizes[0].clamp(min=1)).tolist()


def _arm(name: str, recipe: Recipe, subject: Subject, grafted: Retraining, parts: list[Batch]) -> Arm:
    """Return the arm of that name, of a model of its own; `grafted` is that of the arm which is called so."""
    if name in _OF_OTHERS:
        return _OF_OTHERS[name](subject.case(recipe), grafted.processes, parts)
    retraining = grafted if name == GRAFTED else make_retraining(subject.case(recipe), grafted.processes)
    return own_arm(name, retraining, parts, deterministic=recipe.training.deterministic)


def _start(arm: Arm) -> dict[str, Any]:
    """Take an arm's first steps, and return what they take besides time."""
    first = arm.seconds(1).wall
    arm.run(_WARM_UP)
    return {"first_step_seconds": first, **measure(arm)}


def _ratios(timed: Blocks, names: Sequence[str], *, by_processor: bool) -> list[dict[str, Any]]:
    """Return how the throughput of arms `of` and `to` compares, that of the grafted to the plain one first.

    `processor_time` is the same by the time that the process spent on processors (None if a device computes).
    """
    to_plain = [(name, PLAIN) for name in names if name not in (PLAIN, *_OF_OTHERS)]
    return [
        {
            "of": of,
            "to": to,
            **throughput_ratio(timed, of, to),
            "processor_time": processor_ratio(timed, of, to) if by_processor else None,
        }
        for of, to in (*to_plain, *_ALSO)
        if {of, to} <= {*names}
    ]


def _describe(subject: Subject, case: Case, processes: Processes, parts: list[Batch]) -> dict[str, Any]:
    training = subject.recipe.training
    precision = choose_precision(training.precision, processes.device)
    return {
        "model": subject.request.model,
        "trp": case.manifest.trp,
        "temporary_parameters": case.manifest.temporary_parameters,
        "settings": {
            "data": subject.data.train.name,
            "batch_size": training.batch_size,
            **_size(parts[0]),
            "accumulate": training.accumulate,
            "optimizer": training.optimizer.name,
            "precision": str(precision).removeprefix("torch."),
            "compile": training.compile,
        },
        "machine": environment(processes),
    }


def _size(batch: Batch) -> dict[str, Any]:
    """Return the pixels of a batch's images, height and width, or the length of its other samples."""
    if IMAGES in batch.inputs:
        return {"image_size": list(batch.inputs[IMAGES].shape[2:])}
    return {"length": next(iter(batch.inputs.values())).shape[-1]}


@contextmanager
def _switches(training: TrainingSection, threads: int | None) -> Iterator[None]:
    """Set what all arms have in common of torch's switches in the block, timm's too."""
    with _threads(threads), tf32_products(training.tf32), fastest_convolutions(training.cudnn_benchmark):
        yield


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Let torch compute with so many threads in the block; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
