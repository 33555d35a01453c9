"""Data whose classes have other numbers or names than they came with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from spgsurgeon.data.sources.source import ImageSource, Source
from spgsurgeon.data.transforms.masks import IGNORED

Whole = TypeVar("Whole", bound=Source[Any])


@dataclass(frozen=True, eq=False)
class Renumbered(Generic[Whole]):
    """The samples of `whole` with classes of other names or in another order: `numbers` has the new number of each.

    Classes that are no longer there have -1, and no sample.
    """

    whole: Whole
    classes: tuple[str, ...]
    numbers: NDArray[np.int64]
    remarks: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The data set's."""
        return self.whole.name

    @property
    def notes(self) -> tuple[str, ...]:
        """The data set's, and what is said of the new classes."""
        return (*self.whole.notes, *self.remarks)

    @property
    def border_assumed(self) -> bool:
        """The data set's, of one with masks."""
        return getattr(self.whole, "border_assumed", False)

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """See `Source`."""
        image, target = self.whole.read(index)
        return image, self._renumbered(target)

    def _renumbered(self, target: int | NDArray[np.int64] | Tensor) -> int | NDArray[np.int64] | Tensor:
        if isinstance(target, np.ndarray):
            return self.numbers[target]
        if not isinstance(target, Tensor):
            return int(self.numbers[target])
        table = torch.from_numpy(np.append(self.numbers, IGNORED))  # what stands for nothing takes the last place
        return table[torch.where(target == IGNORED, len(self.numbers), target)]

    def describe(self, index: int) -> str:
        """See `Source`."""
        return self.whole.describe(index)

    def file_paths(self) -> Iterable[str | Path]:
        """See `Source`."""
        return self.whole.file_paths()

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [*self.whole.marks(), str(self.numbers.tolist())]


class RenumberedImages(Renumbered[ImageSource]):
    """Labelled images with other class numbers."""

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.numbers[self.whole.labels()]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return [*self.whole.fingerprint(), str(self.numbers.tolist())]


def renumbered(
    source: Source[Any], classes: Sequence[str], numbers: Sequence[int], remarks: Sequence[str] = ()
) -> Source[Any]:
    """Return the data with these classes; `numbers` has the new number of each old one, -1 for one without samples."""
    kind = RenumberedImages if hasattr(source, "labels") else Renumbered
    return kind(cast(Any, source), tuple(classes), np.array(numbers, dtype=np.int64), tuple(remarks))


def in_order_of(source: Source[Any], classes: Sequence[str]) -> Source[Any]:
    """Return the data with its classes numbered in the order of `classes`, which are its own."""
    if tuple(classes) == source.classes:
        return source
    return renumbered(source, classes, [classes.index(name) for name in source.classes])
