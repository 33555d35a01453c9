"""One loader that outlives epochs: its workers, how they start, end and die, and what they send."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch.utils.data import DataLoader, Dataset

from spgsurgeon.data.loading.samples import Made, Part, Unusable
from spgsurgeon.data.loading.seen import Seen
from spgsurgeon.data.sources.source import Source
from spgsurgeon.errors import DataError, SurgeonError
from spgsurgeon.runtime import SIGNALS, die_with_parent

Asked = TypeVar("Asked")


class Readable(Protocol[Made]):
    """What a feed reads from: a data set by key, whose items make parts."""

    @property
    def source(self) -> Source[Any]:
        """Where they come from, to speak of them."""

    def open(self) -> None:
        """Do what must be done before workers start."""

    def __getitem__(self, key: Any) -> Any: ...

    def collate(self, items: list[Any]) -> Part[Made] | Unusable:
        """Return what the items make, or the first that can't be used."""


class _Plan(Generic[Asked]):
    """The batch sampler of a loader that outlives epochs; `keys` is what it samples next."""

    keys: Iterable[list[Asked]] = ()

    def __iter__(self) -> Iterator[list[Asked]]:
        return iter(self.keys)


class Feed(Generic[Asked, Made]):
    """Runs plans through one DataLoader, so that workers live from epoch to epoch.

    `seconds` is the processor time that workers had for what they sent so far.
    """

    def __init__(self, samples: Readable[Made], workers: int, pin_memory: bool) -> None:
        self.unusable: dict[str, str] = {}
        self.seen = Seen(len(samples.source))
        self.seconds = 0.0
        self._samples, self._workers, self._pin_memory = samples, workers, pin_memory
        self._plan = _Plan[Asked]()
        self._loader: DataLoader[Any] | None = None
        self._running: Generator[list[Made], None, None] | None = None

    def run(self, keys: Iterable[list[Asked]]) -> Iterator[list[Made]]:
        """Return what each of the plan's batches of keys became, a batch for each size of image.

        An earlier plan's iterator ends here, and what it prefetched is dropped.
        """
        self._end_running()
        self._plan.keys = keys
        self._running = self._parts()
        return self._running

    def open(self) -> None:
        """Decode what is to stay decoded, if it is not yet; the first batch of a run would."""
        self._samples.open()

    def close(self) -> None:
        """End the workers; the next run would start new ones."""
        self._end_running()
        workers = getattr(self._loader, "_iterator", None)
        if workers is not None:
            # torch ends them with the last reference to their iterator, but a traceback may still hold one
            _wake(workers._workers)
            workers._shutdown_workers()
        self._loader = None

    def _end_running(self) -> None:
        if self._running is not None:
            self._running.close()
            self._running = None

    def _parts(self) -> Generator[list[Made], None, None]:
        source = self._samples.source
        self._samples.open()
        try:
            for loaded in self._start():
                if isinstance(loaded, Unusable):
                    raise unusable_error(source, loaded)
                self.unusable |= {source.describe(one.index): one.reason for one in loaded.unusable}
                if loaded.noticed is not None:
                    self.seen.add(loaded.noticed)
                self.seconds += loaded.seconds
                yield loaded.batches
        except Exception as error:
            if not _tells_of_a_dead_worker(error):
                raise
            hint = "often the memory ran out: lower data.workers, or give the machine more (shared) memory"
            raise SurgeonError(f"a loader worker died: {str(error) or type(error).__name__}", hint=hint) from error

    def _start(self) -> Iterator[Part[Made] | Unusable]:
        """Start the loader on the plan.

        torch's SIGCHLD handler raises in whatever the main thread is doing when a worker dies, be it half an optimizer
        step. Without it the loader tells of a dead worker as well, when it is asked for the next batch.
        """
        if self._loader is None:
            self._loader = self._new_loader()
        handler = signal.getsignal(signal.SIGCHLD)
        with _signals_wait():
            parts: Iterator[Part[Made] | Unusable] = iter(self._loader)
            if signal.getsignal(signal.SIGCHLD) is not handler:
                signal.signal(signal.SIGCHLD, handler)
        return parts

    def _new_loader(self) -> DataLoader[Any]:
        return DataLoader(
            cast(Dataset[Any], self._samples),
            batch_sampler=self._plan,
            num_workers=self._workers,
            persistent_workers=self._workers > 0,
            collate_fn=self._samples.collate,
            worker_init_fn=start_worker,
            pin_memory=self._pin_memory,
            generator=torch.Generator(),  # without one, the loader draws from the caller's
        )


def unusable_error(source: Source[Any], found: Unusable) -> DataError:
    """Return what a sample that can't be used ends a run with."""
    return DataError(
        f"can't use {source.describe(found.index)}: {found.reason}",
        hint=found.hint
        or "repair it and run the command again (train: with --resume), or remove it and start anew; "
        "data.unreadable=skip (eval: --unreadable skip) leaves such samples out; `spgsurgeon check` names all of them",
        unusable=source.describe(found.index),
    )


def _tells_of_a_dead_worker(error: Exception) -> bool:
    """Return whether torch noticed a worker's death, or that a batch the worker still held is gone.

    The thread that pins batches ends where it asks for such a batch.
    """
    signs = ("DataLoader worker (pid", "Pin memory thread exited")
    return isinstance(error, EOFError | ConnectionError) or any(sign in str(error) for sign in signs)


def _wake(workers: Iterable[BaseProcess]) -> None:
    """Let workers go on that somebody has stopped: they would hear neither torch nor SIGTERM, and be waited for."""
    for worker in workers:
        if worker.pid is not None and worker.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGCONT)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let `SIGNALS` come after the block, and in a worker that it starts when that has its own handlers.

    A handler that raises must not do so within a fork: Python drops what is raised there, locks taken for it stay.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def start_worker(worker: int) -> None:
    """Drop inherited handlers: on Ctrl-C, or when its terminal hangs up, the training process finishes its step first.

    Then it ends the workers.
    Where the system can, a worker ends with a training process that is killed, instead of noticing it seconds later.
    """
    sys.excepthook = _report_unless_hung_up
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    die_with_parent()


def _report_unless_hung_up(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print what a worker's thread failed with, but for a training process that was stopped while it took a batch."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)
