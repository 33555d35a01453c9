"""Texts that change where what a source reads may have changed, so that what was decoded of it is decoded anew."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def file_states(paths: Iterable[str | Path]) -> Iterator[str]:
    """Return each file's path, size and time of change; a file that is gone has its path only."""
    for path in paths:
        try:
            state = os.stat(path)
            yield f"{os.path.abspath(path)} {state.st_size} {state.st_mtime_ns}"
        except OSError:
            yield os.path.abspath(path)


def tree_files(root: str | Path) -> Iterator[Path]:
    """Return all files below a folder, in the order of their names."""
    for parent, folders, names in os.walk(root):
        folders.sort()
        yield from (Path(parent, name) for name in sorted(names))
