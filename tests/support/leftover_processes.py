"""Which processes are still there: those of a group, and those that were started with a mark (Linux)."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

MARK = "SPGSURGEON_TEST_MARK"
"""An environment variable, which every process hands on to those that it starts."""


def in_group(group: int) -> list[int]:
    """Return the processes of the group that are running."""
    return [process for process, words in _running() if int(words[2]) == group]


def marked(mark: str) -> list[int]:
    """Return the running processes whose environment has the mark, however far they went from who started them."""
    entry = f"{MARK}={mark}".encode()
    return [process for process, _ in _running() if entry in _environment(process)]


def command_of(process: int) -> str:
    """Return a running process's command line."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def seconds_until_gone(find: Callable[[], list[int]], limit: float) -> float | None:
    """Return how long it took until nothing was found; None if something still is after `limit` seconds."""
    started = time.monotonic()
    while find():
        if time.monotonic() - started > limit:
            return None
        time.sleep(0.005)
    return time.monotonic() - started


def _running() -> list[tuple[int, list[str]]]:
    """Return every process that has not ended, with the words of its stat file from its state on."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if words[0] not in "ZX":
                found.append((int(entry.name), words))
    return found


def _environment(process: int) -> list[bytes]:
    try:
        return Path(f"/proc/{process}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
