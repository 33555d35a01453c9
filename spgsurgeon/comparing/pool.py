"""Many runs in a few processes of their own, and one signal that ends them all.

On the CPU each run has one thread: more would change the rounding with their number, and so the results with --jobs.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any, TypeVar

import torch

from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime.signals import InterruptedRunError, StopRequest, die_with_parent, stop_on_signals

_POLL_SECONDS = 0.3

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Failure:
    """A SurgeonError on its way between processes: its kinds do not all come through pickling."""

    kind: str
    message: str
    hint: str | None
    exit_code: int

    def error(self) -> SurgeonError:
        error = SurgeonError(self.message, hint=self.hint)
        error.kind, error.exit_code = self.kind, self.exit_code
        return error


class Crew:
    """Calls functions in `jobs` spawned processes or, if that is one, in this one. Made by `hire`."""

    def __init__(self, stop: StopRequest, pool: ProcessPoolExecutor | None = None, line: _Line | None = None) -> None:
        self._stop, self._pool, self._line = stop, pool, line

    def call(self, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
        """Yield what the function returns for each of the arguments, as it comes.

        Raises InterruptedRunError after SIGINT, SIGTERM or SIGHUP, once the runs have made their checkpoints, and the
        first SurgeonError that a call ended with.
        """
        if self._pool is not None:
            yield from self._in_processes(self._pool, function, calls)
            return
        with one_thread():
            for arguments in calls:
                self.leave_if_asked()
                try:
                    result = function(*arguments)
                except InterruptedRunError as error:  # of a run, which says how to go on with it alone
                    raise _stopped(error.exit_code - 128) from error
                yield result

    def leave_if_asked(self) -> None:
        """Raise InterruptedRunError where a signal has come."""
        if self._stop.number is not None:
            raise _stopped(self._stop.number)

    def _in_processes(
        self, pool: ProcessPoolExecutor, function: Callable[..., Result], calls: Iterable[tuple[Any, ...]]
    ) -> Iterator[Result]:
        pending: set[Future[Result | _Failure]] = {pool.submit(_guarded, function, *call) for call in calls}
        try:
            while pending:
                done, pending = wait(pending, _POLL_SECONDS, FIRST_COMPLETED)
                self.leave_if_asked()
                for future in done:
                    result = future.result()
                    if isinstance(result, _Failure):
                        raise result.error()
                    yield result
        except BrokenProcessPool as error:
            hint = "often the memory ran out: lower --jobs; then go on with the same command and --resume"
            raise SurgeonError("a process of the comparison died", hint=hint) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._send_home()
            raise

    def _send_home(self) -> None:
        """Let the processes make their checkpoints and leave."""
        assert self._line is not None
        self._line.leave.set()
        while not self._line.numbers.empty():
            with suppress(ProcessLookupError):
                os.kill(self._line.numbers.get(), signal.SIGTERM)


def _stopped(number: int) -> InterruptedRunError:
    hint = "go on with the same command and --resume"
    return InterruptedRunError(f"the comparison was stopped by signal {number}", hint=hint, number=number)


@dataclass(frozen=True)
class _Line:
    """What the processes and their parent tell each other: their numbers, and that it is time to leave."""

    numbers: Any
    leave: Any


_line: _Line | None = None  # in a process of the crew


@contextmanager
def hire(jobs: int) -> Iterator[Crew]:
    """Yield a crew of so many processes, which ends with the block; SIGINT, SIGTERM and SIGHUP are the crew's then."""
    with stop_on_signals() as stop:
        if jobs == 1:
            yield Crew(stop)
            return
        context = get_context("spawn")
        line = _Line(context.SimpleQueue(), context.Event())
        with ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(line,)) as pool:
            yield Crew(stop, pool, line)


def _start(line: _Line) -> None:
    """Make this process one of the crew. What comes to all of them at once, as Ctrl-C does, the parent passes on."""
    global _line
    _line = line
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    line.numbers.put(os.getpid())


def _guarded(function: Callable[..., Result], *arguments: Any) -> Result | _Failure:
    assert _line is not None
    if _line.leave.is_set():
        return _Failure("interrupted", "not begun", None, 143)
    try:
        return function(*arguments)
    except SurgeonError as error:
        return _Failure(error.kind, error.message, error.hint, error.exit_code)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread of the CPU inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
