"""Batches whose content depends on the seed, the epoch and the sample alone, never on workers or interruptions.

Shapes: B pictures of C x H x W in a batch, with labels [B] or masks [B, H, W]; W processes, each one's rank r < W. A
*joined batch* is the W * B samples that all processes read for one step.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.training.augmentation import Transform
from spgsurgeon.training.joint_augmentation import JointTransform
from spgsurgeon.training.seeds import derive_seed, isolated_generator
from spgsurgeon.training.sources import Source

AnyTransform = Transform | JointTransform
"""The second for sources of masks: it takes the mask too, and gives both."""
Key = tuple[int, int]  # epoch, index of the sample
Batch = tuple[Tensor, Tensor]


def default_workers() -> int:
    """Return how many loader workers suit this process: its share of the machine's cores, between 1 and 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class TrainingBatches:
    """Shuffled full batches of one process, in an order that is a function of the seed and the epoch.

    Refuses a data set that is smaller than one joined batch.
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
    ) -> None:
        joined = world_size * batch_size
        if len(source) < joined:
            raise UsageError(
                f"{source.name} has {len(source)} samples, too few for one batch of "
                f"{joined} ({world_size} processes x {batch_size})",
                hint="lower training.batch_size",
            )
        self.batches_per_epoch = len(source) // joined
        self._samples, self._batch_size, self._seed = len(source), batch_size, seed
        self._rank, self._world_size = rank, world_size
        self._feed = _Feed(_Samples(source, transform, seed), workers, pin_memory)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return images float32 [B, C, H, W] and labels or masks, int64, of the epoch's batches from `start` on.

        Starting an epoch ends the iterator of the one before. Raises DataError at a sample that can't be read.
        """
        assert 0 <= start <= self.batches_per_epoch
        return self._feed.run(self._plan(epoch, start))

    def close(self) -> None:
        """End the workers; the next epoch would start new ones."""
        self._feed.close()

    def _plan(self, epoch: int, start: int) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "order", epoch))
        order = torch.randperm(self._samples, generator=generator)
        for batch in range(start, self.batches_per_epoch):
            first = (batch * self._world_size + self._rank) * self._batch_size
            yield [(epoch, index) for index in order[first : first + self._batch_size].tolist()]


class EvaluationBatches:
    """Every sample exactly once over all processes, in order: each rank reads one contiguous part.

    The last batch may be smaller, and ranks may differ by a batch (or, with few samples, have none). Where pictures
    come in several sizes, a batch is given out in parts, one for each size: nothing is padded, so no score depends on
    which pictures share a batch.
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
    ) -> None:
        samples = len(source)
        part = range(samples * rank // world_size, samples * (rank + 1) // world_size)
        self._parts = [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
        self._feed = _Feed(_Samples(source, transform, seed=0), workers, pin_memory)

    def __iter__(self) -> Iterator[Batch]:
        return self._feed.run([(0, index) for index in part] for part in self._parts)

    def close(self) -> None:
        """End the workers; iterating again would start new ones."""
        self._feed.close()


@dataclass(frozen=True)
class _Unusable:
    """What a worker sends for a sample that can't be used: an exception would arrive as a traceback in a traceback."""

    index: int
    reason: str
    hint: str | None = None


_Item = tuple[Tensor, int | Tensor] | _Unusable


class _Samples(Dataset[_Item]):
    def __init__(self, source: Source[Any], transform: AnyTransform, seed: int) -> None:
        self.source = source
        self._transform: Callable[..., Any] = transform
        self._seed = seed

    def __getitem__(self, key: Key) -> _Item:
        epoch, index = key
        with isolated_generator(derive_seed(self._seed, "augment", epoch, index)):
            try:
                image, label = self.source.read(index)
            except Exception as error:  # decoders raise much more than OSError on damaged files
                return _Unusable(index, str(error) or type(error).__name__, getattr(error, "hint", None))
            if isinstance(label, Tensor):  # a mask, whose source knows its classes
                picture, mask = self._transform(image, label)
                return picture, mask
            if not 0 <= label < len(self.source.classes):
                return _Unusable(index, f"its label {label} is not one of the {len(self.source.classes)} classes")
            return self._transform(image), label


class _Plan:
    """The batch sampler of a loader that outlives epochs; `keys` is what it samples next."""

    keys: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)


class _Feed:
    """Runs plans through one DataLoader, so that workers live from epoch to epoch."""

    def __init__(self, samples: _Samples, workers: int, pin_memory: bool) -> None:
        self._samples, self._workers, self._pin_memory = samples, workers, pin_memory
        self._plan = _Plan()
        self._loader: DataLoader[_Item] | None = None
        self._running: Generator[Batch, None, None] | None = None

    def run(self, keys: Iterable[list[Key]]) -> Iterator[Batch]:
        """Return the plan's batches; an earlier plan's iterator ends here, and what it prefetched is dropped."""
        self._end_running()
        self._plan.keys = keys
        self._running = self._batches()
        return self._running

    def close(self) -> None:
        self._end_running()
        workers = getattr(self._loader, "_iterator", None)
        if workers is not None:
            # torch ends them with the last reference to their iterator, but a traceback may still hold one
            workers._shutdown_workers()
        self._loader = None

    def _end_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _batches(self) -> Generator[Batch, None, None]:
        try:
            for loaded in self._start():
                if isinstance(loaded, _Unusable):
                    raise DataError(
                        f"can't use {self._samples.source.describe(loaded.index)}: {loaded.reason}",
                        hint=loaded.hint or "repair or remove it, then run the command again (train: with --resume)",
                    )
                yield from ((images, labels) for images, labels in loaded)  # pinned, they come as lists
        except Exception as error:
            if not _tells_of_a_dead_worker(error):
                raise
            hint = "often the memory ran out: lower data.workers, or give the machine more (shared) memory"
            raise SurgeonError(f"a loader worker died: {str(error) or type(error).__name__}", hint=hint) from error

    def _start(self) -> Iterator[list[Batch] | _Unusable]:
        """Start the loader on the plan.

        torch's SIGCHLD handler raises in whatever the main thread is doing when a worker dies, be it half an optimizer
        step. Without it the loader tells of a dead worker as well, when it is asked for the next batch.
        """
        if self._loader is None:
            self._loader = self._new_loader()
        handler = signal.getsignal(signal.SIGCHLD)
        batches: Iterator[list[Batch] | _Unusable] = iter(self._loader)
        if signal.getsignal(signal.SIGCHLD) is not handler:
            signal.signal(signal.SIGCHLD, handler)
        return batches

    def _new_loader(self) -> DataLoader[_Item]:
        return DataLoader(
            self._samples,
            batch_sampler=self._plan,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            collate_fn=_collate,
            worker_init_fn=_leave_signals_to_the_parent,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # without one, the loader draws from the caller's
        )


def _collate(items: list[_Item]) -> list[Batch] | _Unusable:
    """Return a batch for each size of picture (in training there is one), or the first sample that can't be used."""
    sizes: dict[torch.Size, list[tuple[Tensor, int | Tensor]]] = {}
    for item in items:
        if isinstance(item, _Unusable):
            return item
        sizes.setdefault(item[0].shape, []).append(item)
    return [default_collate(alike) for alike in sizes.values()]


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Return whether torch noticed a worker's death, or that a batch the worker still held is gone."""
    return isinstance(error, EOFError | ConnectionError) or "DataLoader worker (pid" in str(error)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Drop inherited handlers: on Ctrl-C the training process finishes its step first, and then ends the workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
