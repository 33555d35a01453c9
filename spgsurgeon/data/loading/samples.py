"""What loader workers do: one sample read and transformed by its key, and what the samples of a batch come to.

Shapes: B samples in a batch; images are [B, C, H, W], with labels [B] or masks [B, H, W].
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

from spgsurgeon.data.loading.seen import Noticed, count_drawn
from spgsurgeon.data.sources.image_decoding import traits_of
from spgsurgeon.data.sources.source import Source
from spgsurgeon.data.sources.traits import Traits
from spgsurgeon.data.transforms.augmentation import StagedTransform, Transform
from spgsurgeon.data.transforms.joint import JointTransform
from spgsurgeon.errors import DataError
from spgsurgeon.models import IMAGES
from spgsurgeon.runtime import derive_seed, isolated_generator

Inputs = dict[str, Tensor]
"""What goes into the model, by name; see `models.inputs`."""


class Prepared(NamedTuple):
    """What a transform makes of a sample that is not an image."""

    inputs: Inputs
    target: Tensor | None = None
    """None: the label that the source gave."""
    traits: Traits = Traits(0)


AnyTransform = Transform | JointTransform | Callable[[Any], Prepared | Inputs] | Callable[[Any, Any], Any]
"""Makes what the model sees of a sample: a tensor is an image, inputs have names. If the source gives anything but a
label as the target, as masks are, the transform takes that too, and gives both or `Prepared`."""
Key = tuple[int, int]  # epoch, index of the sample


class Batch(NamedTuple):
    """Samples that go through the model together."""

    inputs: Inputs
    """Each [B, ...]; images are float32 [B, C, H, W]."""
    targets: Tensor
    """int64 [B], labels, or [B, ...] with one for each unit, as [B, H, W], masks."""
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
    """What a worker sends for a sample, and for those before it whose place it takes; the rest as in `Noticed`."""

    inputs: Inputs
    target: int | Tensor
    index: int
    replaces: tuple[Unusable, ...] = ()
    traits: int = 0
    drawn: Tensor | None = None


Collate = Callable[[list[Loaded]], list[Batch]]
Made = TypeVar("Made")


class Part(NamedTuple, Generic[Made]):  # pinning memory goes through tuples only
    """What one batch of keys became: a batch for each size of image (in training there is one).

    `seconds` is the processor time that a worker had for it.
    """

    batches: list[Made]
    unusable: list[Unusable]
    seconds: float
    noticed: Noticed | None = None


Item = Loaded | Unusable


def batches_by_size(items: list[Loaded]) -> list[Batch]:
    """Return a batch for each size of inputs among the samples: nothing is padded."""
    sizes: dict[tuple[torch.Size, ...], list[Loaded]] = {}
    for item in items:
        sizes.setdefault(tuple(tensor.shape for tensor in item.inputs.values()), []).append(item)
    alike = ([(item.inputs, item.target, item.index) for item in same] for same in sizes.values())
    return [Batch(*default_collate(same)) for same in alike]


class Decoded(Protocol):
    """Images that stay decoded, as a transform's fixed stage leaves them."""

    def read(self, number: int) -> tuple[Image.Image, int] | None:
        """Return an image and its label; None for one that is to be read from its source."""


class Samples(Dataset[Item]):
    """The samples by key. `replaces` gives the next usable one for one that is not, `skips` leaves those out.

    `decode` gives images that stay decoded; it is called once, by `open`. Its transform has stages. `counts` has the
    pixels of masks counted by class, in the first epoch. `collate` makes batches of the samples of one.
    """

    def __init__(
        self,
        source: Source[Any],
        transform: AnyTransform,
        seed: int,
        *,
        replaces: bool = False,
        skips: bool = False,
        counts: bool = False,
        decode: Callable[[], Decoded] | None = None,
        collate: Collate = batches_by_size,
    ) -> None:
        self._batches_of = collate
        self.source, self.skips = source, skips
        self._transform: Callable[..., Any] = transform
        self._seed, self._replaces, self._counts = seed, replaces, counts
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
        loaded: list[Loaded] = []
        unusable: list[Unusable] = []
        for item in items:
            if isinstance(item, Loaded):
                loaded.append(item)
                unusable += item.replaces
            elif self.skips:
                unusable.append(item)
            else:
                return item
        return Part(self._batches_of(loaded), unusable, time.thread_time() - self._started, _noticed(loaded))

    def _load(self, epoch: int, index: int) -> Item:
        with isolated_generator(self.seed_of((epoch, index))):
            try:
                content, target, transform = self._read(index)
            except Exception as error:  # decoders raise much more than OSError on damaged files
                return Unusable(index, str(error) or type(error).__name__, getattr(error, "hint", None))
            if isinstance(target, int) and not 0 <= target < len(self.source.classes):
                return Unusable(index, f"its label {target} is not one of the {len(self.source.classes)} classes")
            try:
                made = _prepared(transform, content, target)
            except DataError as error:
                return Unusable(index, error.message, error.hint)
        if not all(tensor.sum().isfinite() for tensor in made.inputs.values()):
            return Unusable(index, "what the model would see of it is not finite: it has NaN or infinity")
        drawn = None
        if self._counts and epoch == 0 and isinstance(target, Tensor):  # a mask, whose source knows its classes
            drawn = count_drawn(target, len(self.source.classes))
        traits = int(traits_of(content) | made.traits)
        return Loaded(made.inputs, target if made.target is None else made.target, index, traits=traits, drawn=drawn)

    def _read(self, index: int) -> tuple[Image.Image, Any, Callable[..., Any]]:
        """Return an image and its target, and what makes of them what the model sees."""
        kept = self._decoded.read(index) if self._decoded is not None else None
        if kept is None:
            return *self.source.read(index), self._transform
        assert isinstance(self._transform, StagedTransform)
        return *kept, self._transform.varied


def _prepared(transform: Callable[..., Any], content: Any, target: Any) -> Prepared:
    """Return what a transform makes of a sample."""
    made = transform(content) if isinstance(target, int) else transform(content, target)
    if isinstance(made, Prepared):
        return made
    made, new = (made, None) if isinstance(target, int) else made
    return Prepared({IMAGES: made} if isinstance(made, Tensor) else made, new)


def _noticed(items: list[Loaded]) -> Noticed | None:
    """Return what was noticed of the samples; None for nothing."""
    traits = [(item.index, item.traits) for item in items if item.traits]
    drawn = [item.drawn for item in items if item.drawn is not None]
    if not traits and not drawn:
        return None
    return Noticed(traits, torch.stack(drawn).sum(0) if drawn else None)
