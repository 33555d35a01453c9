"""`spgsurgeon eval`: accuracy and throughput of a base on a split of a data set."""

from __future__ import annotations

import re
from pathlib import Path
from shlex import quote
from typing import Any

from spgsurgeon.errors import UsageError
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.training.augmentation import evaluation_transform
from spgsurgeon.training.evaluation import evaluate
from spgsurgeon.training.loader import EvaluationBatches, default_workers
from spgsurgeon.training.processes import Processes, choose_precision, join_processes
from spgsurgeon.training.sources import ImageSource, open_source
from spgsurgeon.workflows.opening import open_model

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def evaluate_model(
    model: str,
    data: str,
    *,
    path: Path | None = None,
    split: str = "val",
    weights: str | None = None,
    arch: str | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int | None = None,
    device: str = "auto",
    precision: str = "auto",
) -> dict[str, Any]:
    """Return the document of `eval --json`: top1, top5 (percent), loss, samples, images_per_second.

    `data` is an image-folder tree, `digits`, or a data-set name that timm reads (then `path` is where it lies);
    `image_size` in pixels (None: the model's own). Raises UsageError where data and model have other classes.
    """
    _check_computation(device, precision)
    source = open_data(data, path, split)
    opened = open_model(model, weights=weights, arch=arch)
    check_classes(source, opened.identity.num_classes, model, hint="score it on data with the classes it was made for")
    preprocessing = opened.preprocessing.at(image_size)
    with join_processes(device) as processes:
        batches = evaluation_batches(source, preprocessing, batch_size, workers, processes)
        try:
            module = opened.module.to(processes.device)
            scores = evaluate(module, batches, processes, choose_precision(precision, processes.device))
        finally:
            batches.close()
    return {
        **scores,
        "samples": round(scores["samples"]),
        "image_size": list(preprocessing.input_size[1:]),
        "model": model,
        "data": source.name,
        "notes": opened.notes,
    }


def open_data(data: str, path: Path | None, split: str) -> ImageSource:
    """Return the source that `--data` names: a folder's path, or the name of a data set."""
    if path is None and Path(data).expanduser().is_dir():
        return open_source("folder", data, split)
    if path is None and data != "digits" and "/" in data and not data.startswith(("torch/", "hfds/")):
        raise UsageError(f"there is no folder {data}", hint="--data is a folder, digits, torch/NAME or hfds/NAME")
    if path is None and data.startswith("torch/"):
        raise UsageError(f"--data {data} needs the folder it lies in", hint="--data-path FOLDER")
    return open_source(data, path, split)


def evaluation_batches(
    source: ImageSource, preprocessing: Preprocessing, batch_size: int, workers: int | None, processes: Processes
) -> EvaluationBatches:
    """Return the batches of one evaluation, this process's share of them."""
    return EvaluationBatches(
        source,
        evaluation_transform(preprocessing),
        batch_size=batch_size,
        workers=default_workers() if workers is None else workers,
        rank=processes.rank,
        world_size=processes.world_size,
        pin_memory=processes.device.type == "cuda",
    )


def check_classes(source: ImageSource, num_classes: int, model: str, hint: str | None = None) -> None:
    """Raise UsageError where the data has other classes than the model; the hint is how to train it all the same."""
    if len(source.classes) != num_classes:
        graft = f"give it a new head first: spgsurgeon graft {quote(model)} --num-classes {len(source.classes)} -o DIR"
        raise UsageError(
            f"{source.name} has {len(source.classes)} classes, {model} has {num_classes}", hint=hint or graft
        )


def _check_computation(device: str, precision: str) -> None:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", device):
        raise UsageError(f"{device!r} is not a device", hint="there are auto, cpu, cuda, cuda:N and mps")
    if precision not in PRECISIONS:
        raise UsageError(f"{precision!r} is not a precision", hint=f"there are {', '.join(PRECISIONS)}")
