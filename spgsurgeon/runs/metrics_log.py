"""What a run measures, a line of JSON an epoch; trackers are told the same numbers, and what is too much for a line.

Epochs count from 1 within their `phase`, "head", "cold" or "train"; numbers of an epoch lie at the step that ended it,
the scores of the original at step 0, and the loss of each step at its own.
"""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import atomic_file, write_failures
from spgsurgeon.errors import SurgeonError
from spgsurgeon.runs.layout import METRICS
from spgsurgeon.runs.trackers import Tracker
from spgsurgeon.runtime import as_json, in_a_line

_NO_TAGS = ("epoch", "step")
"""Numbers that say where others are, and have no curve of their own."""


class MetricsLog:
    """The metrics.jsonl of a run `folder`, and `trackers` that are told the same numbers."""

    def __init__(self, folder: Path, trackers: Sequence[Tracker] = ()) -> None:
        self._path, self._trackers = folder / METRICS, trackers

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Append one line and the same numbers to the events; all of it or nothing."""
        with write_failures(self._path):
            try:
                with line_added(self._path, metrics):
                    self._show(metrics)
            except OSError:
                for tracker in self._trackers:
                    tracker.drop()
                raise

    def forget_after(self, done: Mapping[str, int]) -> None:
        """Keep the lines of so many epochs of each phase, and none that is damaged: a resumed run does the rest."""
        keep_lines(self._path, done)

    def add_original(self, scores: Mapping[str, Any]) -> None:
        """Tell the trackers the scores before the first step."""
        with write_failures(self._path):
            self._tell(dict(_scalars({"evaluation": scores})), 0)

    def add_losses(self, first: int, losses: Sequence[float]) -> None:
        """Tell the trackers the losses of steps from number `first` on."""
        with write_failures(self._path):
            for step, loss in enumerate(losses, start=first):
                if math.isfinite(loss):
                    self._tell({"step_loss": loss}, step)

    def close(self) -> None:
        """Let the trackers write what is left."""
        for tracker in self._trackers:
            tracker.close()

    def _show(self, metrics: Mapping[str, Any]) -> None:
        self._tell({tag: value for tag, value in _scalars(metrics) if tag not in _NO_TAGS}, metrics["step"])

    def _tell(self, numbers: Mapping[str, float], step: int) -> None:
        for tracker in self._trackers:
            try:
                tracker.log(numbers, step)
            except OSError:
                raise
            except Exception as error:  # of a library that has its own
                raise SurgeonError(
                    f"{type(tracker).__name__} failed: {in_a_line(error)}",
                    hint="resume without it: --resume training.loggers=[]",
                    code="tracker-failed",
                ) from error


@contextmanager
def line_added(path: Path, document: Mapping[str, Any]) -> Iterator[None]:
    """Append a line of JSON to a file, on the disk when the block begins; it is taken back if that raises OSError."""
    line = (as_json(document) + "\n").encode()
    with path.open("ab", buffering=0) as file:
        size = file.tell()
        try:
            if file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
            yield
        except OSError:
            file.truncate(size)
            raise


def keep_lines(path: Path, done: Mapping[str, int]) -> None:
    """Keep the lines of a file, if there is one, that are of so many epochs of each phase, and none that is damaged."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    kept = [line for line in lines if _is_of(line, done)]
    if kept != lines:
        with atomic_file(path, force=True) as temporary:
            temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


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
