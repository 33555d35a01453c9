"""An error of a library in one line."""

import pytest

from spgsurgeon.errors import first_line
from spgsurgeon.runtime.checks import in_a_line


@pytest.mark.parametrize(
    ("error", "line", "with_type"),
    [
        (ValueError("\n too long\nwith more"), "too long", "ValueError: too long"),
        (MemoryError(), "MemoryError", "MemoryError"),
        (RuntimeError(" \n "), "RuntimeError", "RuntimeError"),
    ],
)
def test_an_error_is_said_in_one_line(error: Exception, line: str, with_type: str) -> None:
    assert (first_line(error), in_a_line(error)) == (line, with_type)
