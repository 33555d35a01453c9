"""SIGINT and SIGTERM: finish the step, save, leave. A second signal leaves at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from spgsurgeon.errors import SurgeonError


class InterruptedRunError(SurgeonError):
    """The run was told to stop; what it had done is saved. The exit code is 128 + the signal's number."""

    kind = "interrupted"

    def __init__(self, message: str, *, hint: str | None, number: int) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = 128 + number


class StopRequest:
    """Holds the number of the first signal that came, None while there was none."""

    number: int | None = None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Catch the first SIGINT or SIGTERM into the request; restore the handlers at the first one and at the end.

    Python allows handlers in the main thread only; elsewhere the request stays empty.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        request.number = number
        restore()

    for number in numbers:
        signal.signal(number, catch)
    try:
        yield request
    finally:
        restore()
