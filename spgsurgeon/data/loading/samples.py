"""What loader workers do: one sample read and transformed by its key, and what the samples of a batch come to.

Shapes: B pictures of C x H x W in a batch, with labels [B] or masks [B, H, W].
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from spgsurgeon.data.sources.source import Source
from spgsurgeon.data.transforms.augmentation import StagedTransform, Transform
from spgsurgeon.data.transforms.joint import JointTransform
from spgsurgeon.runtime.seeds import derive_seed, isolated_generator

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


Made = TypeVar("Made")


class Part(NamedTuple, Generic[Made]):  # pinning memory goes through tuples only
    """What one batch of keys became: a batch for each size of picture (in training there is one).

    `seconds` is the processor time that a worker had for it.
    """

    batches: list[Made]
    unusable: list[Unusable]
    seconds: float


Item = Loaded | Unusable


class Decoded(Protocol):
    """Pictures that stay decoded, as a transform's fixed stage leaves them."""

    def read(self, number: int) -> tuple[Image.Image, int] | None:
        """Return a picture and its label; None for one that is to be read from its source."""


class Samples(Dataset[Item]):
    """The samples by key. `replaces` gives the next usable one for one that is not, `skips` leaves those out.

    `decode` gives pictures that stay decoded; it is called once, by `open`. Its transform has stages.
    """

    def __init__(
        self,
        source: Source[Any],
        transform: AnyTransform,
        seed: int,
        *,
        replaces: bool = False,
        skips: bool = False,
        decode: Callable[[], Decoded] | None = None,
    ) -> None:
        self.source, self.skips = source, skips
        self._transform: Callable[..., Any] = transform
        self._seed, self._replaces = seed, replaces
        self._decode = decode
        self._decoded: Decoded | None = None
        self._started = 0.0

    def open(self) -> None:
        """Decode what is to stay decoded, if it is not yet."""
        if self._decode is not None:
            self._decoded, self._decode = self._decode(), None

    def seed_of(self, key: Key) -> int:
        """Return what the generator is seeded with for a sample in an epoch."""
        return derive_seed(self._seed, "augment", *key)

    def __getitems__(self, keys: list[Key]) -> list[Item]:
        self._started = time.thread_time()
        return [self[key] for key in keys]

    def __getitem__(self, key: Key) -> Item:
        epoch, index = key
        item = self._load(epoch, index)
        passed_over: list[Unusable] = []
        while isinstance(item, Unusable) and self._replaces and len(passed_over) + 1 < len(self.source):
            passed_over.append(item)
            item = self._load(epoch, (item.index + 1) % len(self.source))
        return replace(item, replaces=tuple(passed_over)) if isinstance(item, Loaded) and passed_over else item

    def collate(self, items: list[Item]) -> Part[Batch] | Unusable:
        """Return the batches that the samples make, or the first that can't be used, unless those are skipped."""
        sizes: dict[torch.Size, list[Loaded]] = {}
        unusable: list[Unusable] = []
        for item in items:
            if isinstance(item, Loaded):
                sizes.setdefault(item.image.shape, []).append(item)
                unusable += item.replaces
            elif self.skips:
                unusable.append(item)
            else:
                return item
        batches = [_batch_of(alike) for alike in sizes.values()]
        return Part(batches, unusable, time.thread_time() - self._started)

    def _load(self, epoch: int, index: int) -> Item:
        with isolated_generator(self.seed_of((epoch, index))):
            try:
                image, label, transform = self._read(index)
            except Exception as error:  # decoders raise much more than OSError on damaged files
                return Unusable(index, str(error) or type(error).__name__, getattr(error, "hint", None))
            if isinstance(label, Tensor):  # a mask, whose source knows its classes
                picture, target = transform(image, label)
            elif 0 <= label < len(self.source.classes):
                picture, target = transform(image), label
            else:
                return Unusable(index, f"its label {label} is not one of the {len(self.source.classes)} classes")
        if not picture.sum().isfinite():
            return Unusable(index, "what the model would see of it is not finite: it has NaN or infinity")
        return Loaded(picture, target, index)

    def _read(self, index: int) -> tuple[Image.Image, Any, Callable[..., Any]]:
        """Return a picture and its target, and what makes of them what the model sees."""
        kept = self._decoded.read(index) if self._decoded is not None else None
        if kept is None:
            return *self.source.read(index), self._transform
        assert isinstance(self._transform, StagedTransform)
        return *kept, self._transform.varied


def _batch_of(items: list[Loaded]) -> Batch:
    images, targets, samples = default_collate([(item.image, item.target, item.index) for item in items])
    return Batch(images, targets, samples)
