"""Segmentation: one class for each pixel.

Shapes: N images, C classes; logits float32 [N, C, H, W], masks int64 [N, H, W].
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.data import IGNORED, MASKED, joint_evaluation_transform, joint_training_transform
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import Processes, sum_dtype
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Scores, Task


class SegmentationTally:
    """Counts mean_iou and pixel_accuracy (percent), class_iou, loss (mean cross entropy of a pixel) and samples.

    A class's IoU is intersection over union of its pixels in all images together, None where it is neither drawn nor
    predicted; their mean is over the others. Pixels whose class is `IGNORED` count nowhere.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._confusion: Tensor | None = None  # int64 [C, C]: pixels by true and by predicted class
        self._loss = torch.zeros((), dtype=sum_dtype(processes.device), device=processes.device)
        self._samples = torch.zeros((), dtype=torch.int64, device=processes.device)
        self._pixels = 0  # those ignored too

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch of images."""
        confusion = confusion_of(logits, target)
        self._confusion = confusion if self._confusion is None else self._confusion + confusion
        # Of maps CUDA has no deterministic cross entropy that sums by itself.
        self._loss += cross_entropy(logits, target, reduction="none", ignore_index=IGNORED).sum(dtype=self._loss.dtype)
        self._samples += len(target)
        self._pixels += target.numel()

    def scores(self) -> Scores:
        """Return the scores over all processes."""
        samples = int(self._processes.sum(self._samples))
        if not samples:
            raise UsageError("there is not one image to evaluate on")
        confusion = self._over_processes().cpu()
        pixels = int(confusion.sum())
        if not pixels:
            raise UsageError("there is not one pixel to evaluate on: all of them are ignored")
        hits, unions = overlaps_of(confusion)
        both = zip(hits.tolist(), unions.tolist(), strict=True)
        class_iou = [100 * hit / union if union else None for hit, union in both]
        present = [iou for iou in class_iou if iou is not None]
        return {
            "mean_iou": sum(present) / len(present),
            "pixel_accuracy": 100 * int(hits.sum()) / pixels,
            "class_iou": class_iou,
            "loss": self._processes.sum(self._loss).item() / pixels,
            "samples": samples,
        }

    def drawn(self) -> list[int]:
        """Return the pixels over all processes by true class, and after these how many are ignored: C + 1 numbers."""
        drawn = self._over_processes().sum(1).tolist()
        pixels = int(self._processes.sum(torch.tensor(self._pixels, device=self._processes.device)))
        return [*drawn, pixels - sum(drawn)]

    def _over_processes(self) -> Tensor:
        """Return the sum of all processes' counts; one that had no image has yet to learn of the classes."""
        classes = self._processes.largest(0 if self._confusion is None else len(self._confusion))
        if self._confusion is None:
            self._confusion = torch.zeros((classes, classes), dtype=torch.int64, device=self._processes.device)
        return self._processes.sum(self._confusion)


def confusion_of(logits: Tensor, target: Tensor) -> Tensor:
    """Return how many pixels there are by true and by predicted class, int64 [C, C], without those `IGNORED`."""
    classes = logits.shape[1]
    # Ignored pixels go to a place of their own: to leave them out would wait for the device to count them.
    pairs = torch.where(target == IGNORED, classes**2, target * classes + logits.argmax(1)).flatten()
    counts = torch.zeros(classes**2 + 1, dtype=torch.int64, device=logits.device)
    return counts.index_add_(0, pairs, torch.ones_like(pairs))[:-1].view(classes, classes)


def overlaps_of(confusion: Tensor) -> tuple[Tensor, Tensor]:
    """Return the pixels in the intersection and in the union of each class as drawn and as predicted, each [C]."""
    hits = confusion.diag()
    return hits, confusion.sum(0) + confusion.sum(1) - hits


def _overlaps_of_each(logits: Tensor, target: Tensor) -> Tensor:
    """Return the pixels in the intersections and unions of each image, int64 [N, 2, C]."""
    confusions = [confusion_of(logits[one : one + 1], target[one : one + 1]) for one in range(len(target))]
    return torch.stack([torch.stack(overlaps_of(confusion)) for confusion in confusions])


def _mean_iou(overlaps: NDArray[Any]) -> NDArray[np.float64]:
    """Return the mean IoU in percent, [R], by intersections and unions [R, 2, C]; as `SegmentationTally` has it.

    Some class must be there, drawn or predicted, in each of the R.
    """
    hits, unions = overlaps[:, 0], overlaps[:, 1]
    there = unions > 0
    found: NDArray[np.float64] = 100 * (hits / np.where(there, unions, 1)).sum(1) / there.sum(1)
    return found


SEGMENTATION = Task(
    name="segmentation",
    unit="pixel",
    predicts="a class for each pixel",
    samples=MASKED,
    source="masks",
    training_transform=joint_training_transform,
    evaluation_transform=joint_evaluation_transform,
    size=lambda preprocessing: {"shorter_edge": preprocessing.input_size[1]},
    metrics=(Metric("mean_iou", "mean IoU", hub_name="mean_iou"), Metric("pixel_accuracy", "pixel accuracy"), LOSS),
    tally=SegmentationTally,
    counts=_overlaps_of_each,
    from_counts=_mean_iou,
    by_class=(Metric("class_iou", "IoU"),),
    largest_side=128,  # at full size a proof would take seconds and gigabytes
    pipeline_tag="image-segmentation",
    usage='# model(images)["out"] is [N, classes, height, width]\n',
)
