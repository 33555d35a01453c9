"""Parts of a data set, chosen by its labels and its order alone: the same for every seed, process and resumed run.

Images with masks have no labels, and are chosen by their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.data.sources.masks import MaskSource
from spgsurgeon.data.sources.source import ImageSource, Source, short_hash
from spgsurgeon.data.strata import shuffled_classes, stratified_order
from spgsurgeon.errors import UsageError

HELD_OUT = " held out"

Whole = TypeVar("Whole", bound=Source[Any])


@dataclass(frozen=True, eq=False)
class Subset(Generic[Whole]):
    """The samples of `whole` at `indices`, in their order there; its own indices count from 0.

    `remark` is said with its name, `said` with its notes.
    """

    whole: Whole
    indices: NDArray[np.int64]
    remark: str = ""
    said: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The data set's, and how many of its samples these are."""
        return f"{self.whole.name}, {len(self)} of {len(self.whole)}{self.remark}"

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes of the data set."""
        return self.whole.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """The data set's, and what choosing the samples gave reason to say."""
        return (*self.whole.notes, *self.said)

    @property
    def border_assumed(self) -> bool:
        """The data set's, of one with masks."""
        return getattr(self.whole, "border_assumed", False)

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """See `Source`."""
        return self.whole.read(int(self.indices[index]))

    def describe(self, index: int) -> str:
        """See `Source`; a number in it is that in the whole data set."""
        return self.whole.describe(int(self.indices[index]))

    def file_paths(self) -> Iterable[str | Path]:
        """See `Source`; all of the data set, since which samples are chosen goes by all."""
        return self.whole.file_paths()

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [*self.whole.marks(), short_hash(self.indices.astype("<i8").tobytes())]


class LabelledSubset(Subset[ImageSource]):
    """A part of labelled images."""

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.whole.labels()[self.indices]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return [*self.whole.fingerprint(), str(self.indices.tolist())]


def hold_out(source: ImageSource, share: float) -> tuple[LabelledSubset, LabelledSubset]:
    """Return what is left of a data set and the `share` (0 < share < 1) taken from it, each class in proportion.

    A class keeps one image at least, so there may be fewer held out than asked for. Raises UsageError if there
    would be none.
    """
    left, held = _parted(source, share, source.labels().tolist())
    return LabelledSubset(source, left), LabelledSubset(source, held, HELD_OUT)


def hold_out_masks(source: MaskSource, share: float) -> tuple[Subset[MaskSource], Subset[MaskSource]]:
    """Return the same of images with masks, which are drawn without regard to what is on them; one at least stays."""
    left, held = _parted(source, share, [0] * len(source))
    return Subset(source, left), Subset(source, held, HELD_OUT)


def limit_samples(source: Source[Any], most: int) -> Source[Any]:
    """Return at most so many samples, each class in proportion; of those without labels regardless of what they are."""
    if len(source) <= most:
        return source
    labelled = hasattr(source, "labels")
    labels = source.labels().tolist() if labelled else [0] * len(source)  # type: ignore[attr-defined]
    kept = np.array(sorted(stratified_order(labels, "eval-limit")[:most]), dtype=np.int64)
    said = (f"scores are of {most:,} of the {len(source):,} samples of {source.name} (data.eval_limit)",)
    return (LabelledSubset if labelled else Subset)(source, kept, said=said)  # type: ignore[arg-type]


def _parted(source: Source[Any], share: float, labels: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices of what is left and of what is held out."""
    left = Counter(labels)
    held: list[int] = []
    for index in stratified_order(labels, "holdout")[: round(share * len(source))]:
        if left[labels[index]] > 1:
            left[labels[index]] -= 1
            held.append(index)
    if not held:
        of = f" of {len(left)} classes" if len(left) > 1 else ""
        raise UsageError(
            f"a holdout of {share:g} of {source.name} is empty: it has {len(source)} samples{of}",
            hint="hold out more (data.holdout), or evaluate on another split (data.eval) and leave data.holdout out",
        )
    taken = np.zeros(len(source), dtype=bool)
    taken[held] = True
    return np.flatnonzero(~taken), np.flatnonzero(taken)


def limit_classes(source: ImageSource, most: int) -> LabelledSubset:
    """Return at most so many samples of each class; those of a lower limit are among those of a higher one."""
    whole, indices = (source.whole, source.indices) if isinstance(source, LabelledSubset) else (source, None)
    chosen = [index for members in shuffled_classes(source.labels(), "limit").values() for index in members[:most]]
    kept = np.array(sorted(chosen), dtype=np.int64)
    return LabelledSubset(whole, kept if indices is None else indices[kept])
