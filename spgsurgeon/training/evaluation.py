"""Accuracy of the base path, every sample once whatever the number of processes."""

from __future__ import annotations

import time
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spgsurgeon.errors import UsageError
from spgsurgeon.training.processes import Processes, autocast

Scores = dict[str, float]


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], processes: Processes, precision: torch.dtype
) -> Scores:
    """Return top1, top5 (percent), loss (mean cross entropy), samples, and images_per_second with data loading.

    `model` is put into eval mode; a grafted model is its base then. Raises UsageError where there is nothing to score.
    """
    model.eval()
    started = time.perf_counter()
    sums = torch.zeros(4, device=processes.device)  # top-1 hits, top-5 hits, cross entropy, samples
    for images, labels in batches:
        images = images.to(processes.device, non_blocking=True)
        labels = labels.to(processes.device, non_blocking=True)
        with autocast(processes.device, precision):
            logits = model(images)
        sums += _count(logits.float(), labels)
    top1, top5, loss, samples = processes.sum(sums).tolist()
    if not samples:
        raise UsageError("there is not one picture to evaluate on")
    return {
        "top1": 100 * top1 / samples,
        "top5": 100 * top5 / samples,
        "loss": loss / samples,
        "samples": samples,
        "images_per_second": samples / (time.perf_counter() - started),
    }


def _count(logits: Tensor, labels: Tensor) -> Tensor:
    best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    loss = cross_entropy(logits, labels, reduction="sum")
    return torch.stack([best[:, 0].sum(), best.sum(), loss, best.new_tensor(len(labels), dtype=torch.float32)])
