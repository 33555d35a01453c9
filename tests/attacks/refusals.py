"""What a reader may end with when a file is hostile or damaged: its answer, or one short refusal."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from spgsurgeon.errors import SurgeonError

Answer = TypeVar("Answer")


def attempted(call: Callable[[], Answer]) -> Answer | SurgeonError:
    """Return the answer, or the refusal; any other exception is the end of the test."""
    try:
        return call()
    except SurgeonError as error:
        return error


def check_short(error: SurgeonError) -> None:
    assert error.exit_code in (1, 2, 4), error.message
    assert len(error.message) < 600, error.message
    assert error.message.isprintable(), error.message
