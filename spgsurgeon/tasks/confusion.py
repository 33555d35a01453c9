"""Units counted by true and by predicted class: what the accuracy of each class and the confusions come from.

Shapes: C classes; a unit is what gets a prediction of its own, as an image, a pixel or a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spgsurgeon.data import IGNORED
from spgsurgeon.runtime import Processes

MOST_CLASSES = 2_000
"""With more classes there is no matrix: of so many it takes 32 MB."""
FEW_CLASSES = 100
"""With more classes the matrix is in a document only if it is asked for."""
MOST_FREQUENT = 20
_SUMS = 3


@dataclass(frozen=True)
class Confusions:
    """Units by class, int64. `matrix` is [C, C], true by predicted class; None of more than `MOST_CLASSES`.

    `sums` is [3, C]: how often a class was predicted rightly, was the label, and was predicted.
    """

    sums: NDArray[np.int64]
    matrix: NDArray[np.int64] | None

    @property
    def accuracies(self) -> list[float | None]:
        """The share of each class's units that are predicted rightly (its recall), percent; None for one without."""
        right, label, _ = self.sums.tolist()
        return [100 * hits / units if units else None for hits, units in zip(right, label, strict=True)]

    def worst_first(self) -> list[int]:
        """Return the classes that have units by accuracy, the lowest first."""
        there = [(found, label) for label, found in enumerate(self.accuracies) if found is not None]
        return [label for _, label in sorted(there)]

    def most_frequent(self, most: int | None = None) -> list[tuple[int, int, int]]:
        """Return true class, predicted class and how many units, the most frequent mistakes first."""
        if self.matrix is None:
            return []
        wrong = self.matrix - np.diag(self.matrix.diagonal())
        found = [(int(label), int(other), int(wrong[label, other])) for label, other in np.argwhere(wrong)]
        return sorted(found, key=lambda one: -one[2])[:most]

    def record(self) -> dict[str, Any]:
        """Return plain data by class number, of the confusions the `MOST_FREQUENT`: what a run keeps of each epoch."""
        right, label, _ = self.sums.tolist()
        return {"right": right, "units": label, "confusions": self.most_frequent(MOST_FREQUENT)}

    def document(self, names: Sequence[str], *, whole: bool) -> dict[str, Any]:
        """Return plain data with the classes' names; unless it is the `whole`, the `MOST_FREQUENT` confusions.

        The matrix of more than `FEW_CLASSES` is only in the whole.
        """
        units = self.sums[1].tolist()
        shown = self.matrix is not None and (whole or len(names) <= FEW_CLASSES)
        return {
            "classes": [
                {"class": name, "units": count, "accuracy": found}
                for name, count, found in zip(names, units, self.accuracies, strict=True)
            ],
            "confusions": [
                {
                    "class": names[label],
                    "predicted": names[other],
                    "units": count,
                    "percent": 100 * count / units[label],
                }
                for label, other, count in self.most_frequent(None if whole else MOST_FREQUENT)
            ],
            "confusion_matrix": self.matrix.tolist() if self.matrix is not None and shown else None,
        }


class Confusion:
    """Counts of one evaluation. Adding does not wait for the device; whole numbers stay exact, however many."""

    def __init__(self, processes: Processes) -> None:
        self._processes, self._classes = processes, 0
        self._counts: Tensor | None = None  # int64, flat; in the last place units that are ignored

    def add(self, predicted: Tensor, target: Tensor, classes: int) -> None:
        """Count units by predicted and by true class, int64 of one shape; those that are `IGNORED` do not count."""
        if self._counts is None:
            self._classes, self._counts = classes, self._none(classes)
        places = _places(predicted.flatten(), target.flatten(), classes)
        self._counts.index_add_(0, places, torch.ones_like(places))

    def over_processes(self) -> Confusions | None:
        """Return the counts of all processes, each of which must call it; None if there is nothing in any."""
        classes = self._processes.largest(self._classes)
        if not classes:
            return None
        own = self._none(classes) if self._counts is None else self._counts
        counts = self._processes.sum(own).cpu().numpy()[:-1].reshape(-1, classes)
        if classes > MOST_CLASSES:
            return Confusions(counts, None)
        return Confusions(np.stack([counts.diagonal(), counts.sum(1), counts.sum(0)]), counts)

    def _none(self, classes: int) -> Tensor:
        rows = classes if classes <= MOST_CLASSES else _SUMS
        return torch.zeros(rows * classes + 1, dtype=torch.int64, device=self._processes.device)


def class_sums(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return the `sums` of `Confusions`, int64 [3, C], of these units."""
    places = _places_of_sums(predicted.flatten(), target.flatten(), classes)
    counts = torch.zeros(_SUMS * classes + 1, dtype=torch.int64, device=predicted.device)
    return counts.index_add_(0, places, torch.ones_like(places))[:-1].view(_SUMS, classes)


# Units that do not count go to a place of their own, the last: to leave them out would wait for the device to count.


def _places(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    """Return where units count in a flat matrix or, of too many classes, in flat sums."""
    if classes > MOST_CLASSES:
        return _places_of_sums(predicted, target, classes)
    return torch.where(target == IGNORED, classes**2, target * classes + predicted)


def _places_of_sums(predicted: Tensor, target: Tensor, classes: int) -> Tensor:
    last = _SUMS * classes
    rows = torch.where(predicted == target, target, last), classes + target, 2 * classes + predicted
    return torch.cat([torch.where(target == IGNORED, last, row) for row in rows])
