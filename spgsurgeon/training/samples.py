"""What loader workers do: one sample read and transformed by its key, and what the samples of a batch come to.

Shapes: B pictures of C x H x W in a batch, with labels [B] or masks [B, H, W].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from spgsurgeon.training.augmentation import Transform
from spgsurgeon.training.joint_augmentation import JointTransform
from spgsurgeon.training.seeds import derive_seed, isolated_generator
from spgsurgeon.training.sources import Source

AnyTransform = Transform | JointTransform
"""The second for sources of masks: it takes the mask too, and gives both."""
Key = tuple[int, int]  # epoch, index of the sample


class Batch(NamedTuple):
    """Samples that go through the model together."""

    images: Tensor
    """float32 [B, C, H, W]."""
    targets: Tensor
    """int64 [B], labels, or [B, H, W], masks."""
    samples: Tensor
    """int64 [B]: where in their source they are."""


@dataclass(frozen=True)
class Unusable:
    """What a worker sends for a sample that can't be used: an exception would arrive as a traceback in a traceback."""

    index: int
    reason: str
    hint: str | None = None


@dataclass(frozen=True)
class Loaded:
    """What a worker sends for a sample, and for those before it whose place it takes."""

    image: Tensor
    target: int | Tensor
    index: int
    replaces: tuple[Unusable, ...] = ()


class Part(NamedTuple):  # pinning memory goes through tuples only
    """What one batch of keys became: a batch for each size of picture (in training there is one)."""

    batches: list[Batch]
    unusable: list[Unusable]


Item = Loaded | Unusable


class Samples(Dataset[Item]):
    """The samples by key. `replaces` gives the next usable one for one that is not, `skips` leaves those out."""

    def __init__(
        self, source: Source[Any], transform: AnyTransform, seed: int, *, replaces: bool = False, skips: bool = False
    ) -> None:
        self.source = source
        self._transform: Callable[..., Any] = transform
        self._seed, self._replaces, self._skips = seed, replaces, skips

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        item = self._load(epoch, index)
        passed_over: list[Unusable] = []
        while isinstance(item, Unusable) and self._replaces and len(passed_over) + 1 < len(self.source):
            passed_over.append(item)
            item = self._load(epoch, (item.index + 1) % len(self.source))
        return replace(item, replaces=tuple(passed_over)) if isinstance(item, Loaded) and passed_over else item

    def collate(self, items: list[Item]) -> Part | Unusable:
        """Return the batches that the samples make, or the first that can't be used, unless those are skipped."""
        sizes: dict[torch.Size, list[Loaded]] = {}
        unusable: list[Unusable] = []
        for item in items:
            if isinstance(item, Loaded):
                sizes.setdefault(item.image.shape, []).append(item)
                unusable += item.replaces
            elif self._skips:
                unusable.append(item)
            else:
                return item
        return Part([_batch_of(alike) for alike in sizes.values()], unusable)

    def _load(self, epoch: int, index: int) -> Item:
        with isolated_generator(derive_seed(self._seed, "augment", epoch, index)):
            try:
                image, label = self.source.read(index)
            except Exception as error:  # decoders raise much more than OSError on damaged files
                return Unusable(index, str(error) or type(error).__name__, getattr(error, "hint", None))
            if isinstance(label, Tensor):  # a mask, whose source knows its classes
                picture, target = self._transform(image, label)
            elif 0 <= label < len(self.source.classes):
                picture, target = self._transform(image), label
            else:
                return Unusable(index, f"its label {label} is not one of the {len(self.source.classes)} classes")
        if not picture.sum().isfinite():
            return Unusable(index, "what the model would see of it is not finite: it has NaN or infinity")
        return Loaded(picture, target, index)


def _batch_of(items: list[Loaded]) -> Batch:
    images, targets, samples = default_collate([(item.image, item.target, item.index) for item in items])
    return Batch(images, targets, samples)
