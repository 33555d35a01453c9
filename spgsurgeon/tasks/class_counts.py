"""Scores of predictions that have one class each: counted by class, so that any number of them takes little room.

Shapes: N samples, C classes, R resamples; a sample may have several units. Counts are [3, C]: how often a class was
predicted rightly, was the label, and was predicted. For counts in the last two dimensions, whatever those before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from spgsurgeon.data import IGNORED
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import Processes, sum_dtype
from spgsurgeon.tasks.confusion import Confusion, Confusions
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Measure, Scores

ACCURACY = Metric("accuracy", "accuracy", hub_name="accuracy")
MATTHEWS = Metric("matthews", "Matthews correlation", hub_name="matthews_correlation")
F1 = Metric("f1", "F1", hub_name="f1")
METRICS = (ACCURACY, MATTHEWS, F1, LOSS)
"""All of them in percent but the loss, as GLUE has them."""


Measures = Mapping[Metric, Callable[[NDArray[Any]], NDArray[np.float64]]]
"""What makes scores of counts."""


class ClassTally:
    """Counts accuracy, matthews and f1 (percent), loss (mean cross entropy) and samples; logits are [N, C].

    With other `measures` it counts these, in percent; logits may be [N, C, units].
    """

    def __init__(self, processes: Processes, measures: Measures | None = None) -> None:
        self._processes, self._measures = processes, measures or _MEASURES
        self._confusion = Confusion(processes)
        self._samples = 0
        self._loss = torch.zeros((), dtype=sum_dtype(processes.device), device=processes.device)

    def add(self, logits: Tensor, target: Tensor) -> None:
        """Count a batch."""
        self._confusion.add(logits.argmax(1), target, logits.shape[1])
        self._loss += cross_entropy(logits, target, reduction="sum", ignore_index=IGNORED)
        self._samples += len(target)

    def scores(self) -> Scores:
        """Return the scores over all processes."""
        found = self.confusions()
        if found is None:
            raise UsageError("there is not one sample to evaluate on")
        counts = found.sums
        units, loss = int(counts[1].sum()), self._processes.sum(self._loss).item()
        samples = self._processes.sum(torch.tensor(self._samples, device=self._processes.device)).item()
        if not units:
            raise UsageError(f"not one of the {samples} samples has a label to score by")
        measured = {metric.name: float(measure(counts)) for metric, measure in self._measures.items()}
        return measured | {"loss": loss / units, "samples": samples}

    def confusions(self) -> Confusions | None:
        """See `Tally`."""
        return self._confusion.over_processes()

    def drawn(self) -> None:
        """See `Tally`: labels are not drawn."""


def class_counts(logits: Tensor, target: Tensor) -> Tensor:
    """Return what each sample adds to the counts, int64 [N, 3, C], of logits [N, C, ...] and labels [N, ...].

    A unit whose label is -100 adds nothing.
    """
    classes, counted = logits.shape[1], (target != IGNORED)[..., None]
    predicted = one_hot(logits.argmax(1), classes) * counted
    label = one_hot(target.clamp(min=0), classes) * counted
    found = torch.stack([predicted * label, label, predicted], dim=-2)
    return found if target.dim() == 1 else found.flatten(1, -3).sum(1)


def accuracy(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of right predictions in percent."""
    right, label = counts[..., 0, :].sum(-1), counts[..., 1, :].sum(-1)
    found: NDArray[np.float64] = 100 * right / label
    return found


def matthews(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return the Matthews correlation in percent, of any number of classes (Gorodkin 2004); 0 if it has no value."""
    right, label, predicted = (counts[..., part, :].astype(np.float64) for part in range(3))
    total = label.sum(-1)
    covariance = right.sum(-1) * total - (label * predicted).sum(-1)
    spread = (total**2 - (label**2).sum(-1)) * (total**2 - (predicted**2).sum(-1))
    found: NDArray[np.float64] = 100 * covariance / np.sqrt(np.where(spread > 0, spread, np.inf))
    return found


def f1(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return F1 in percent: of two classes that of the second, else the mean over those there or predicted."""
    of_each, there = f1_of_each(counts)
    found: NDArray[np.float64] = of_each[..., 1] if counts.shape[-1] == 2 else of_each.sum(-1) / there.sum(-1)
    return 100 * found


def f1_of_each(counts: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the F1 of each class, 0 to 1, and whether it is there or predicted."""
    right, label, predicted = (counts[..., part, :].astype(np.float64) for part in range(3))
    there = label + predicted > 0
    return 2 * right / np.where(there, label + predicted, 1), there


_MEASURES: Measures = {ACCURACY: accuracy, MATTHEWS: matthews, F1: f1}


def hits(logits: Tensor, target: Tensor) -> Tensor:
    """Return whether each sample is predicted rightly, bool [N]."""
    return logits.argmax(1) == target


ALTERNATIVES = {MATTHEWS.name: Measure(class_counts, matthews), F1.name: Measure(class_counts, f1)}
