"""Many runs in a few processes of their own, and one signal that ends them all.

On the CPU each run has one thread: more would change the rounding with their number, and so the results with --jobs.
Where there are several CUDA devices, each process sees one of them; see `devices`.
"""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from types import FrameType
from typing import Any, TypeVar

import torch

from spgsurgeon.comparing.devices import VISIBLE
from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime import InterruptedRunError, StopRequest, die_with_parent, signal_name, stop_on_signals

_POLL_SECONDS = 0.3

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Failure:
    """A SurgeonError on its way between processes: its kinds do not all come through pickling."""

    kind: str
    exit_code: int
    message: str
    rest: dict[str, Any]

    @classmethod
    def of(cls, error: SurgeonError) -> _Failure:
        return cls(error.kind, error.exit_code, error.message, error.rest)

    def error(self) -> SurgeonError:
        error = SurgeonError(self.message, **self.rest)
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
        """Raise InterruptedRunError if a signal has come."""
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
            hint = "often the memory ran out: lower --jobs; then resume with the same command and --resume"
            raise SurgeonError("a process of the comparison died", hint=hint) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            self._send_home()
            raise

    def _send_home(self) -> None:
        """Let the processes make their checkpoints and leave; see `_leave`."""
        assert self._line is not None
        self._line.leave.set()
        while not self._line.numbers.empty():
            with suppress(ProcessLookupError):
                os.kill(self._line.numbers.get(), signal.SIGUSR1)


def _stopped(number: int) -> InterruptedRunError:
    hint = "resume with the same command and --resume"
    return InterruptedRunError(f"the comparison was stopped by {signal_name(number)}", hint=hint, number=number)


@dataclass(frozen=True)
class _Line:
    """What the processes and their parent tell each other: their numbers, that it is time to leave, their devices."""

    numbers: Any
    leave: Any
    visible: Any


_line: _Line | None = None  # in a process of the crew
_trouble: _Failure | None = None  # there too: why it can do no run
_busy = False  # there too: whether it has a call


@contextmanager
def hire(jobs: int, visible: Sequence[str] = ()) -> Iterator[Crew]:
    """Yield a crew of so many processes, which ends with the block; SIGINT, SIGTERM and SIGHUP are the crew's then.

    `visible` has for each of the processes the one CUDA device that it sees, or is empty.
    """
    with stop_on_signals() as stop:
        if jobs == 1:
            yield Crew(stop)
            return
        context = get_context("spawn")
        line = _Line(context.SimpleQueue(), context.Event(), context.SimpleQueue() if visible else None)
        for device in visible:
            line.visible.put(device)
        with ProcessPoolExecutor(jobs, context, initializer=_start, initargs=(line,)) as pool:
            yield Crew(stop, pool, line)


def _start(line: _Line) -> None:
    """Make this process one of the crew. What comes to all of them at once, as Ctrl-C does, the parent passes on."""
    global _line
    _line = line
    die_with_parent()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGUSR1, _leave)
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    if line.visible is not None:
        _see_only(line.visible.get())
    line.numbers.put(os.getpid())


def _leave(number: int, frame: FrameType | None) -> None:
    """Take the parent's word as SIGTERM inside a call only: outside, this may hold the lock that others wait for."""
    if _busy:
        signal.raise_signal(signal.SIGTERM)


def _see_only(device: str) -> None:
    """Let this process have one CUDA device. It must not have asked for one before: CUDA reads the variable once."""
    global _trouble
    os.environ[VISIBLE] = device
    if torch.cuda.is_initialized() or torch.cuda.device_count() != 1:
        message = f"a process of the comparison does not have the device {VISIBLE}={device} for itself"
        hint = "the program that calls compare() uses CUDA when it is imported: guard that by __name__ == '__main__'"
        _trouble = _Failure.of(SurgeonError(message, hint=hint, code="device-not-alone"))


def _guarded(function: Callable[..., Result], *arguments: Any) -> Result | _Failure:
    global _busy
    assert _line is not None
    _busy = True
    try:
        if _line.leave.is_set():
            return _Failure("interrupted", 143, "not begun", {})
        return _trouble or function(*arguments)
    except SurgeonError as error:
        return _Failure.of(error)
    finally:
        _busy = False


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch have one thread of the CPU inside the block."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
