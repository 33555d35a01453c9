"""What a run measures, a line of JSON an epoch, and the same numbers as TensorBoard events if that is installed.

Epochs count from 1 within their `phase`, "head", "cold" or "train"; events lie at the step that ended their epoch.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import atomic_file, write_failures
from spgsurgeon.runs.layout import EVENTS, METRICS
from spgsurgeon.runtime import as_json, missing


class MetricsLog:
    """The metrics.jsonl of a run `folder`, and the events in `tensorboard` beside it."""

    def __init__(self, folder: Path) -> None:
        self._path, self._events_folder = folder / METRICS, folder / EVENTS
        self._board: Any = None
        self._hook_before: Any = None

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Append one line and the same numbers to the events; all of it or nothing."""
        line = (as_json(metrics) + "\n").encode()
        with write_failures(self._path), self._path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                if file.write(line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(file.fileno())
                self._show(metrics)
            except OSError:
                self._board = None  # its thread does not outlive a failure
                file.truncate(size)
                raise

    def forget_after(self, done: Mapping[str, int]) -> None:
        """Keep the lines of so many epochs of each phase, and none that is damaged: a resumed run does the rest."""
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _is_of(line, done)]
        if kept != lines:
            with atomic_file(self._path, force=True) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def close(self) -> None:
        """Close the TensorBoard writer."""
        if self._board is not None:
            with suppress(OSError):  # all that it was given is on the disk, or was said not to be
                self._board.close()
            self._board = None
        if self._hook_before is not None:
            threading.excepthook, self._hook_before = self._hook_before, None

    def _show(self, metrics: Mapping[str, Any]) -> None:
        if missing("tensorboard"):
            return
        board = self._events(metrics["step"])
        for tag, value in _scalars(metrics):
            board.add_scalar(tag, value, metrics["step"])
        board.flush()

    def _events(self, step: int) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._keep_its_thread_quiet()
            # TensorBoard then shows nothing that an interrupted run said of this epoch.
            self._board = SummaryWriter(str(self._events_folder), purge_step=step)
        return self._board

    def _keep_its_thread_quiet(self) -> None:
        """Let no traceback of the writer's thread be printed: what it fails with, `flush` raises in this one."""
        if self._hook_before is not None:
            return
        before = self._hook_before = threading.excepthook

        def others(failed: threading.ExceptHookArgs) -> None:
            if type(failed.thread).__name__ != "_AsyncWriterThread":
                before(failed)

        threading.excepthook = others


def _is_of(line: str, done: Mapping[str, int]) -> bool:
    """Whether a line is of an epoch that is `done`, by phase; not so where it was cut off or is no longer JSON."""
    try:
        metrics = json.loads(line)
        return bool(metrics["epoch"] <= done.get(metrics["phase"], 0))
    except (ValueError, TypeError, KeyError):
        return False


def _scalars(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers and their tags. A list has an entry a step; within scores it has one a class, too many."""
    found: list[tuple[str, float]] = []
    for key, value in metrics.items():
        tag = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += _scalars(value, f"{tag}/")
        elif isinstance(value, list) and not prefix:
            found += _scalars({str(i): entry for i, entry in enumerate(value)}, f"{tag}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((tag, float(value)))
    return found
