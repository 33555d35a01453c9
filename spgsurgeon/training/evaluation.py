"""Scores of the base path, every sample once whatever the number of processes."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.data import Batch, Cache, EvaluationBatches, Source, Transfer
from spgsurgeon.models import SamplePreprocessing
from spgsurgeon.replicas import GraftedModel
from spgsurgeon.runtime import (
    Processes,
    autocast,
    choose_memory_format,
    default_workers,
    laid_out,
    lay_out_convolutions,
)
from spgsurgeon.tasks import METRIC, Scores, Tally, Task
from spgsurgeon.training.prediction import logits_of


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    processes: Processes,
    precision: torch.dtype,
    task: Task,
    *,
    memory_format: str = "auto",
    tally: Tally | None = None,
    source: Source[Any] | None = None,
) -> Scores:
    """Return the scores of the task's tally, and images_per_second with data loading.

    `tally` counts instead of a new one. `source` is what the batches are of, for tasks that score by the samples
    themselves. `model` is put into eval mode; a grafted model is its base then. Of several outputs the first counts, or
    the one called `out`. Images and the weights of convolutions lie as in training (see `choose_memory_format`), so
    that the same weights score the same there and after it. Raises UsageError if there is nothing to score.
    """
    model.eval()
    base = model.base if isinstance(model, GraftedModel) else model
    layout = choose_memory_format(memory_format, processes.device, model)
    lay_out_convolutions(model, layout)
    started = time.perf_counter()
    tally, transfer = tally or task.tally(processes), Transfer(processes.device)
    for batch in batches:
        inputs, targets = transfer((batch.inputs, batch.targets))
        if task.scored_by_samples is not None:
            assert source is not None
            targets = task.scored_by_samples(targets, [source.read(sample) for sample in batch.samples.tolist()])
        with autocast(processes.device, precision):
            logits = logits_of(task, model, laid_out(inputs, layout), base=base, output=task.output)
            if not isinstance(logits, Tensor):
                tally.add(logits, targets)  # which makes them
        if isinstance(logits, Tensor):
            tally.add(logits.float(), targets)
    scores = tally.scores() | ({METRIC: task.primary.name} if task.alternatives else {})
    return scores | {"images_per_second": scores["samples"] / (time.perf_counter() - started)}


def evaluation_batches(
    source: Source[Any],
    preprocessing: SamplePreprocessing,
    batch_size: int,
    workers: int | None,
    processes: Processes,
    *,
    task: Task,
    unreadable: str = "stop",
    cache: Cache | None = None,
) -> EvaluationBatches:
    """Return the batches of one evaluation, this process's share of them."""
    return EvaluationBatches(
        source,
        task.evaluation_transform(preprocessing),
        batch_size=batch_size,
        workers=default_workers() if workers is None else workers,
        rank=processes.rank,
        world_size=processes.world_size,
        pin_memory=processes.device.type == "cuda",
        unreadable=unreadable,
        cache=cache,
        collate=task.collation(preprocessing),
    )
