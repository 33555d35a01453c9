"""SIGINT, SIGTERM and SIGHUP: finish the step, save, leave. A second signal leaves at once."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from spgsurgeon.errors import SurgeonError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

# torchrun passes a signal on that may have come to the whole group already; that is no second one.
_REPEAT_SECONDS = 1.0 if "TORCHELASTIC_RUN_ID" in os.environ else 0.0


_DIE_WITH_PARENT = 1  # of Linux' prctl: PR_SET_PDEATHSIG


def signal_name(number: int) -> str:
    """Return what people call a signal, such as SIGTERM; its number if it has no name."""
    names = {known.value: known.name for known in signal.Signals}
    return names.get(number, f"signal {number}")


class InterruptedRunError(SurgeonError):
    """The run was told to stop; what it had done is saved. The exit code is 128 + the signal's number."""

    kind = "interrupted"

    def __init__(self, message: str, *, hint: str | None, number: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + number


class StopNow(BaseException):  # like KeyboardInterrupt: compilers catch every Exception and go on
    """Raised where a signal comes inside `StopRequest.at_once`."""


class StopRequest:
    """Holds the number of the first signal that came, None while there was none."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._interruptible = False
        self._came = 0.0

    @contextmanager
    def at_once(self, wanted: bool = True) -> Iterator[None]:
        """Let a signal raise StopNow inside the block: what is done there leaves nothing half done, and may last."""
        self._interruptible = wanted
        try:
            if wanted and self.number is not None:
                raise StopNow
            yield
        finally:
            self._interruptible = False

    def _receive(self, number: int) -> bool:
        """Take note of a signal; return whether it is a second one."""
        if self.number is not None:
            return time.monotonic() - self._came >= _REPEAT_SECONDS
        self.number, self._came = number, time.monotonic()
        if self._interruptible:
            raise StopNow
        return False


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch the first of `SIGNALS` into the request; a second one, and all after the block, go to who had them.

    Python allows handlers in the main thread only; elsewhere the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    before = {number: handler for number, handler in handlers.items() if handler != signal.SIG_IGN}  # as nohup has it

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        if request._receive(number):
            restore()
            signal.raise_signal(number)

    for number in before:
        signal.signal(number, catch)
    try:
        yield request
    finally:
        restore()


def die_with_parent() -> None:
    """Let this process end at once with its parent, where the system can, instead of waiting for it in vain."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and parent.pid != os.getppid():  # it was killed before this process came here
            os._exit(1)
