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
from spgsurgeon.tasks.confusion import Confusion, Confusions, class_sums
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Scores, Task


class SegmentationTally:
    """Counts mean_iou and pixel_accuracy (percent), class_iou, loss (mean cross entropy of a pixel) and samples.

    A class's IoU is intersection over union of its pixels in all images together, None if it is neither drawn nor
    predicted; their mean is over the others. Pixels whose class is `IGNORED` count nowhere.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._confusion = Confusion(processes)
        self._loss = torch.zeros((), dtype=sum_dtype(processes.device), device=processes.device)
        self._samples = torch.zeros((), dtype=torch.int64, device=processes.device)
        self._pixels = 0  # those ignored too

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch of images."""
        self._confusion.add(logits.argmax(1), target, logits.shape[1])
        # Of maps CUDA has no deterministic cross entropy that sums by itself.
        self._loss += cross_entropy(logits, target, reduction="none", ignore_index=IGNORED).sum(dtype=self._loss.dtype)
        self._samples += len(target)
        self._pixels += target.numel()

    def scores(self) -> Scores:
        """Return the scores over all processes."""
        samples, found = int(self._processes.sum(self._samples)), self.confusions()
        if found is None:
            raise UsageError("there is not one image to evaluate on")
        pixels = int(found.sums[1].sum())
        if not pixels:
            raise UsageError("there is not one pixel to evaluate on: all of them are ignored")
        hits, unions = overlaps_of(found.sums)
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

    def confusions(self) -> Confusions | None:
        """See `Tally`."""
        return self._confusion.over_processes()

    def drawn(self) -> list[int]:
        """Return the pixels over all processes by true class, and after these how many are ignored: C + 1 numbers."""
        found = self.confusions()
        drawn = [] if found is None else found.sums[1].tolist()
        pixels = int(self._processes.sum(torch.tensor(self._pixels, device=self._processes.device)))
        return [*drawn, pixels - sum(drawn)]


def overlaps_of(sums: Any) -> tuple[Any, Any]:
    """Return the pixels in the intersection and in the union of each class as drawn and as predicted, each [C].

    `sums` [3, C] are those of `Confusions`, an array or a tensor.
    """
    right, label, predicted = sums
    return right, label + predicted - right


def _overlaps_of_each(logits: Tensor, target: Tensor) -> Tensor:
    """Return the pixels in the intersections and unions of each image, int64 [N, 2, C]."""
    predicted, classes = logits.argmax(1), logits.shape[1]
    sums = [class_sums(*one, classes) for one in zip(predicted, target, strict=True)]
    return torch.stack([torch.stack(overlaps_of(one)) for one in sums])


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
