"""What a terminal shows at once, while torch is imported: that takes seconds, and nothing else could be said before."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

_REWRITES = "\r\x1b[2K"
_shown = False


def show_first_line(text: str) -> None:
    """Write a line on stderr that the next output replaces, if that is a terminal; without importing anything."""
    global _shown
    with suppress(OSError, ValueError):
        if sys.stderr.isatty():
            _shown = os.environ.get("TERM", "") not in ("", "dumb", "unknown")
            sys.stderr.write(text if _shown else f"{text}\n")
            sys.stderr.flush()


def clear_first_line() -> None:
    """Take the line away, before anything else is written."""
    global _shown
    if _shown:
        _shown = False
        with suppress(OSError, ValueError):
            sys.stderr.write(_REWRITES)
            sys.stderr.flush()
