"""Batches whose content depends on the seed, the epoch and the sample alone, never on workers or interruptions.

B samples make a batch; of W processes each has a rank r < W. A *joined batch* is the W * B samples that all read
for one step.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spgsurgeon.data.cache.caching import Cache, make_feed
from spgsurgeon.data.loading.feed import unusable_error
from spgsurgeon.data.loading.order import balanced_order, repeats
from spgsurgeon.data.loading.samples import AnyTransform, Batch, Collate, Key, Samples, Unusable, batches_by_size
from spgsurgeon.data.sources.source import Source
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import derive_seed

_BEYOND = 2**32
"""More epochs than a run has."""


class TrainingBatches:
    """Shuffled batches of one process, in an order that is a function of the seed and the epoch.

    All of them are full with `drop_last`. Without it the rest of the data makes a last, smaller joined batch, which the
    processes share evenly; a rest with fewer samples than processes is left out. If `unreadable` is "skip", the next
    sample of the source that can be used takes the place of one that can't, so that batches keep their size; `unusable`
    lists what was passed over. Refuses a data set that does not make a joined batch.

    By default each sample comes once an epoch. With `balance`, of labelled samples, each class comes as often as any
    other (see `balanced_order`); a sample that comes again is augmented otherwise.
    """

    def __init__(
        self,
        source: Source[Any],
        transform: AnyTransform,
        *,
        batch_size: int,
        workers: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        unreadable: str = "stop",
        cache: Cache | None = None,
        collate: Collate = batches_by_size,
        drop_last: bool = True,
        balance: bool = False,
    ) -> None:
        joined = world_size * batch_size
        least = joined if drop_last else world_size
        if len(source) < least:
            raise UsageError(
                f"{source.name} has {len(source)} samples, too few for one batch of "
                f"{joined} ({world_size} processes x {batch_size})",
                hint="lower training.batch_size" if drop_last else "use fewer processes",
            )
        self._joined = joined_sizes(len(source), joined, least)
        self.batches_per_epoch = len(self._joined)
        self._samples, self._batch_size, self._seed = len(source), batch_size, seed
        self._labels: NDArray[np.int64] | None = source.labels() if balance else None  # type: ignore[attr-defined]
        self._rank, self._world_size = rank, world_size
        self.source = source
        self._uncached = Samples(source, transform, seed, replaces=unreadable == "skip", collate=collate)
        self._feed = make_feed(
            source,
            transform,
            seed,
            workers=workers,
            pin_memory=pin_memory,
            cache=cache,
            replaces=unreadable == "skip",
            collate=collate,
            counts=True,
        )

    def divisors(self, first: int, count: int) -> list[float]:
        """Return what the losses of `count` batches from `first` on are divided by to add up to their samples' mean.

        Of batches of one size that is their number.
        """
        sizes = self._joined[first : first + count]
        return [sum(sizes) / size for size in sizes]

    @property
    def seconds(self) -> float:
        """Processor time that was taken to read, augment and collate what was given out so far."""
        return self._feed.seconds

    @property
    def unusable(self) -> dict[str, str]:
        """Why samples were passed over, by what the source calls them; all that this process met so far."""
        return self._feed.unusable

    @property
    def traits(self) -> NDArray[np.uint8]:
        """What this process noticed of each image so far: `Traits`, uint8 [N]."""
        return self._feed.seen.traits

    @property
    def drawn(self) -> Tensor | None:
        """The pixels of masks by class, those ignored last, int64 [C + 1]: of what this process read in epoch 0."""
        return self._feed.seen.drawn

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the epoch's batches from `start` on.

        Starting an epoch ends the iterator of the one before. Raises DataError at a sample that can't be used, unless
        those are skipped.
        """
        assert 0 <= start <= self.batches_per_epoch
        return (batch for part in self._feed.run(self._plan(epoch, start)) for batch in part)

    def first(self) -> Batch:
        """Return the first batch of all, made here: no worker is started and nothing decoded but its images."""
        part = self._uncached.collate(self._uncached.__getitems__(next(self._plan(0, 0))))
        if isinstance(part, Unusable):
            raise unusable_error(self.source, part)
        return part.batches[0]

    def open(self) -> None:
        """Decode what is to stay decoded, if it is not yet; the first batch would."""
        self._feed.open()

    def close(self) -> None:
        """End the workers; the next epoch would start new ones."""
        self._feed.close()

    def _plan(self, epoch: int, start: int) -> Iterator[list[Key]]:
        order, epochs = self._order(epoch)
        for batch in range(start, self.batches_per_epoch):
            joined, first = self._joined[batch], batch * self._world_size * self._batch_size
            own = slice(first, first + joined)
            part = part_of(joined, self._rank, self._world_size)
            yield list(zip(epochs[own][part].tolist(), order[own][part].tolist(), strict=True))

    def _order(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the samples of an epoch, and the epoch that each is augmented as: one of its own if it comes again."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        if self._labels is None:
            order = torch.randperm(self._samples, generator=generator)
            return order, torch.full_like(order, epoch)
        order = balanced_order(self._labels, generator)
        return order, epoch + _BEYOND * repeats(order)


class EvaluationBatches:
    """Every sample exactly once over all processes, in order: each rank reads one contiguous part.

    The last batch may be smaller, and ranks may differ by a batch (or, with few samples, have none). A batch is given
    out in as many parts as `collate` makes of it: by default one for each size of images, so that nothing is padded and
    no score depends on which images share a batch. If `unreadable` is "skip", samples that can't be used are left out,
    and listed in `unusable`.
    """

    def __init__(
        self,
        source: Source[Any],
        transform: AnyTransform,
        *,
        batch_size: int,
        workers: int,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
        unreadable: str = "stop",
        cache: Cache | None = None,
        collate: Collate = batches_by_size,
    ) -> None:
        samples = len(source)
        part = range(samples)[part_of(samples, rank, world_size)]
        self.source = source
        self._parts = [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
        self._most_parts = math.ceil(math.ceil(samples / world_size) / batch_size)
        self._feed = make_feed(
            source,
            transform,
            seed=0,
            workers=workers,
            pin_memory=pin_memory,
            cache=cache,
            skips=unreadable == "skip",
            collate=collate,
        )

    @property
    def samples(self) -> int:
        """How many samples this rank reads."""
        return sum(map(len, self._parts))

    @property
    def unusable(self) -> dict[str, str]:
        """Why samples were left out, by what the source calls them; all that this process met so far."""
        return self._feed.unusable

    @property
    def traits(self) -> NDArray[np.uint8]:
        """See `TrainingBatches`."""
        return self._feed.seen.traits

    def __iter__(self) -> Iterator[Batch]:
        return self.run(lambda: None)

    def run(self, after_part: Callable[[], None]) -> Iterator[Batch]:
        """Return the batches, calling `after_part` after each part of the data: equally often on every rank."""
        for part in self._feed.run([(0, index) for index in part] for part in self._parts):
            yield from part
            after_part()
        for _ in range(self._most_parts - len(self._parts)):
            after_part()

    def close(self) -> None:
        """End the workers; iterating again would start new ones."""
        self._feed.close()


def part_of(samples: int, rank: int, world_size: int) -> slice:
    """Return which of `samples` a rank has: as many as each other one, or one more."""
    return slice(samples * rank // world_size, samples * (rank + 1) // world_size)


def joined_sizes(samples: int, joined: int, least: int) -> list[int]:
    """Return how many samples each joined batch of an epoch has: `joined`, and in a last one at least `least`."""
    rest = samples % joined
    return [joined] * (samples // joined) + ([rest] if rest >= least else [])
