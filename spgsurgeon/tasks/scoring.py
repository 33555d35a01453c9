"""What predictions are worth, counted on the device and read once at the end.

Shapes: N pictures, C classes; logits float32 [N, C] with labels [N], or [N, C, H, W] with masks [N, H, W].
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.distributed import Processes, sum_dtype

Scores = dict[str, Any]
"""Numbers, or lists with one a class; plain data."""


class Tally(Protocol):
    """Counts of one evaluation. Adding does not wait for the device; whole numbers stay exact, however many."""

    def __init__(self, processes: Processes) -> None: ...

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch."""

    def scores(self) -> Scores:
        """Return the scores over all processes, each of which must call it.

        Raises UsageError where there was nothing to score.
        """


class ClassificationTally:
    """Counts top1 and top5 (percent), loss (mean cross entropy) and samples."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._counts = torch.zeros(3, dtype=torch.int64, device=processes.device)  # top-1 hits, top-5 hits, samples
        self._loss = torch.zeros((), dtype=sum_dtype(processes.device), device=processes.device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch of pictures."""
        best = hits_by_place(logits, target)
        pictures = best.new_full((), len(target), dtype=torch.int64)  # a `new_tensor` would be copied, and waited for
        self._counts += torch.stack([best[:, 0].sum(), best.sum(), pictures])
        self._loss += cross_entropy(logits, target, reduction="sum")

    def scores(self) -> Scores:
        """Return the scores over all processes."""
        top1, top5, samples = self._processes.sum(self._counts).tolist()
        loss = self._processes.sum(self._loss).item()
        if not samples:
            raise UsageError("there is not one picture to evaluate on")
        return {"top1": 100 * top1 / samples, "top5": 100 * top5 / samples, "loss": loss / samples, "samples": samples}


class SegmentationTally:
    """Counts mean_iou and pixel_accuracy (percent), class_iou, loss (mean cross entropy of a pixel) and samples.

    A class's IoU is intersection over union of its pixels in all pictures together, None where it is neither drawn nor
    predicted; their mean is over the others. Pixels whose class is `IGNORED` count nowhere.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._confusion: Tensor | None = None  # int64 [C, C]: pixels by true and by predicted class
        self._loss = torch.zeros((), dtype=sum_dtype(processes.device), device=processes.device)
        self._samples = torch.zeros((), dtype=torch.int64, device=processes.device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch of pictures."""
        confusion = confusion_of(logits, target)
        self._confusion = confusion if self._confusion is None else self._confusion + confusion
        # Of maps CUDA has no deterministic cross entropy that sums by itself.
        self._loss += cross_entropy(logits, target, reduction="none", ignore_index=IGNORED).sum(dtype=self._loss.dtype)
        self._samples += len(target)

    def scores(self) -> Scores:
        """Return the scores over all processes."""
        samples = int(self._processes.sum(self._samples))
        if not samples:
            raise UsageError("there is not one picture to evaluate on")
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

    def _over_processes(self) -> Tensor:
        """Return the sum of all processes' counts; one that had no picture has yet to learn of the classes."""
        classes = self._processes.largest(0 if self._confusion is None else len(self._confusion))
        if self._confusion is None:
            self._confusion = torch.zeros((classes, classes), dtype=torch.int64, device=self._processes.device)
        return self._processes.sum(self._confusion)


def hits_by_place(logits: Tensor, target: Tensor) -> Tensor:
    """Return whether a picture's label is the best guess, the second, ... to the fifth: bool [N, 5] (C where less)."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices == target[:, None]


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


TALLIES: dict[str, type[Tally]] = {"classification": ClassificationTally, "segmentation": SegmentationTally}
METRIC = {"classification": "top1", "segmentation": "mean_iou"}
"""The score that the best checkpoint is chosen by; larger is better."""
