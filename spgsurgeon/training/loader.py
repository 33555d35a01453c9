"""Batches whose content depends on the seed, the epoch and the sample alone, never on workers or interruptions.

Shapes: B pictures of C x H x W in a batch, with labels [B] or masks [B, H, W]; W processes, each one's rank r < W. A
*joined batch* is the W * B samples that all processes read for one step.
"""

from __future__ import annotations

import math
import os
import signal
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.training.augmentation import Transform
from spgsurgeon.training.interruption import die_with_parent
from spgsurgeon.training.joint_augmentation import JointTransform
from spgsurgeon.training.seeds import derive_seed, isolated_generator
from spgsurgeon.training.sources import Source

AnyTransform = Transform | JointTransform
"""The second for sources of masks: it takes the mask too, and gives both."""
Key = tuple[int, int]  # epoch, index of the sample

_STOPPING = (signal.SIGINT, signal.SIGTERM)


class Batch(NamedTuple):
    """Samples that go through the model together."""

    images: Tensor
    """float32 [B, C, H, W]."""
    targets: Tensor
    """int64 [B], labels, or [B, H, W], masks."""
    samples: Tensor
    """int64 [B]: where in their source they are."""


def default_workers() -> int:
    """Return how many loader workers suit this process: its share of the machine's cores, between 1 and 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(8, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


class TrainingBatches:
    """Shuffled full batches of one process, in an order that is a function of the seed and the epoch.

    Where `unreadable` is "skip", the next sample of the source that can be used takes the place of one that can't, so
    that batches keep their size; `unusable` lists what was passed over. Refuses a data set that is smaller than one
    joined batch.
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
        self.source = source
        self._feed = _Feed(_Samples(source, transform, seed, replaces=unreadable == "skip"), workers, pin_memory)

    @property
    def unusable(self) -> dict[str, str]:
        """Why samples were passed over, by what the source calls them; all that this process met so far."""
        return self._feed.unusable

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Return the epoch's batches from `start` on.

        Starting an epoch ends the iterator of the one before. Raises DataError at a sample that can't be used, unless
        those are skipped.
        """
        assert 0 <= start <= self.batches_per_epoch
        return (batch for part in self._feed.run(self._plan(epoch, start)) for batch in part)

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
    which pictures share a batch. Where `unreadable` is "skip", samples that can't be used are left out, and listed in
    `unusable`.
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
    ) -> None:
        samples = len(source)
        part = range(samples * rank // world_size, samples * (rank + 1) // world_size)
        self._parts = [part[first : first + batch_size] for first in range(0, len(part), batch_size)]
        self._most_parts = math.ceil(math.ceil(samples / world_size) / batch_size)
        self._feed = _Feed(_Samples(source, transform, seed=0, skips=unreadable == "skip"), workers, pin_memory)

    @property
    def unusable(self) -> dict[str, str]:
        """Why samples were left out, by what the source calls them; all that this process met so far."""
        return self._feed.unusable

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


@dataclass(frozen=True)
class _Unusable:
    """What a worker sends for a sample that can't be used: an exception would arrive as a traceback in a traceback."""

    index: int
    reason: str
    hint: str | None = None


@dataclass(frozen=True)
class _Loaded:
    """What a worker sends for a sample, and for those before it whose place it takes."""

    image: Tensor
    target: int | Tensor
    index: int
    replaces: tuple[_Unusable, ...] = ()


class _Part(NamedTuple):  # pinning memory goes through tuples only
    """What one batch of keys became: a batch for each size of picture (in training there is one)."""

    batches: list[Batch]
    unusable: list[_Unusable]


_Item = _Loaded | _Unusable


class _Samples(Dataset[_Item]):
    """The samples by key. `replaces` gives the next usable one for one that is not, `skips` leaves those out."""

    def __init__(
        self, source: Source[Any], transform: AnyTransform, seed: int, *, replaces: bool = False, skips: bool = False
    ) -> None:
        self.source = source
        self._transform: Callable[..., Any] = transform
        self._seed, self._replaces, self._skips = seed, replaces, skips

    def __getitem__(self, key: Key) -> _Item:
        epoch, index = key
        item = self._load(epoch, index)
        passed_over: list[_Unusable] = []
        while isinstance(item, _Unusable) and self._replaces and len(passed_over) + 1 < len(self.source):
            passed_over.append(item)
            item = self._load(epoch, (item.index + 1) % len(self.source))
        return replace(item, replaces=tuple(passed_over)) if isinstance(item, _Loaded) and passed_over else item

    def collate(self, items: list[_Item]) -> _Part | _Unusable:
        """Return the batches that the samples make, or the first that can't be used, unless those are skipped."""
        sizes: dict[torch.Size, list[_Loaded]] = {}
        unusable: list[_Unusable] = []
        for item in items:
            if isinstance(item, _Loaded):
                sizes.setdefault(item.image.shape, []).append(item)
                unusable += item.replaces
            elif self._skips:
                unusable.append(item)
            else:
                return item
        return _Part([_batch_of(alike) for alike in sizes.values()], unusable)

    def _load(self, epoch: int, index: int) -> _Item:
        with isolated_generator(derive_seed(self._seed, "augment", epoch, index)):
            try:
                image, label = self.source.read(index)
            except Exception as error:  # decoders raise much more than OSError on damaged files
                return _Unusable(index, str(error) or type(error).__name__, getattr(error, "hint", None))
            if isinstance(label, Tensor):  # a mask, whose source knows its classes
                picture, target = self._transform(image, label)
            elif 0 <= label < len(self.source.classes):
                picture, target = self._transform(image), label
            else:
                return _Unusable(index, f"its label {label} is not one of the {len(self.source.classes)} classes")
        if not picture.sum().isfinite():
            return _Unusable(index, "what the model would see of it is not finite: it has NaN or infinity")
        return _Loaded(picture, target, index)


def _batch_of(items: list[_Loaded]) -> Batch:
    images, targets, samples = default_collate([(item.image, item.target, item.index) for item in items])
    return Batch(images, targets, samples)


class _Plan:
    """The batch sampler of a loader that outlives epochs; `keys` is what it samples next."""

    keys: Iterable[list[Key]] = ()

    def __iter__(self) -> Iterator[list[Key]]:
        return iter(self.keys)


class _Feed:
    """Runs plans through one DataLoader, so that workers live from epoch to epoch."""

    def __init__(self, samples: _Samples, workers: int, pin_memory: bool) -> None:
        self.unusable: dict[str, str] = {}
        self._samples, self._workers, self._pin_memory = samples, workers, pin_memory
        self._plan = _Plan()
        self._loader: DataLoader[_Item] | None = None
        self._running: Generator[list[Batch], None, None] | None = None

    def run(self, keys: Iterable[list[Key]]) -> Iterator[list[Batch]]:
        """Return what each of the plan's batches of keys became, a batch for each size of picture.

        An earlier plan's iterator ends here, and what it prefetched is dropped.
        """
        self._end_running()
        self._plan.keys = keys
        self._running = self._parts()
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

    def _parts(self) -> Generator[list[Batch], None, None]:
        describe = self._samples.source.describe
        try:
            for loaded in self._start():
                if isinstance(loaded, _Unusable):
                    raise DataError(
                        f"can't use {describe(loaded.index)}: {loaded.reason}",
                        hint=loaded.hint
                        or "repair or remove it, then run the command again (train: with --resume); "
                        "training can also go on without such pictures: data.unreadable=skip",
                    )
                self.unusable |= {describe(one.index): one.reason for one in loaded.unusable}
                yield loaded.batches
        except Exception as error:
            if not _tells_of_a_dead_worker(error):
                raise
            hint = "often the memory ran out: lower data.workers, or give the machine more (shared) memory"
            raise SurgeonError(f"a loader worker died: {str(error) or type(error).__name__}", hint=hint) from error

    def _start(self) -> Iterator[_Part | _Unusable]:
        """Start the loader on the plan.

        torch's SIGCHLD handler raises in whatever the main thread is doing when a worker dies, be it half an optimizer
        step. Without it the loader tells of a dead worker as well, when it is asked for the next batch.
        """
        if self._loader is None:
            self._loader = self._new_loader()
        handler = signal.getsignal(signal.SIGCHLD)
        with _signals_wait():
            parts: Iterator[_Part | _Unusable] = iter(self._loader)
            if signal.getsignal(signal.SIGCHLD) is not handler:
                signal.signal(signal.SIGCHLD, handler)
        return parts

    def _new_loader(self) -> DataLoader[_Item]:
        return DataLoader(
            self._samples,
            batch_sampler=self._plan,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            collate_fn=self._samples.collate,
            worker_init_fn=_start_worker,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # without one, the loader draws from the caller's
        )


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Return whether torch noticed a worker's death, or that a batch the worker still held is gone."""
    return isinstance(error, EOFError | ConnectionError) or "DataLoader worker (pid" in str(error)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let SIGINT and SIGTERM come after the block, and in a worker that it starts when that has its own handlers.

    A handler that raises must not do so within a fork: Python drops what is raised there, locks taken for it stay.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(worker: int) -> None:
    """Drop inherited handlers: on Ctrl-C the training process finishes its step first, and then ends the workers.

    Where the system can, a worker ends with a training process that is killed, instead of noticing it seconds later.
    """
    sys.excepthook = _report_unless_hung_up
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING)
    die_with_parent()


def _report_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what a worker's thread failed with, but for a training process that was stopped while it took a batch."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
