"""TensorBoard's event files, in the run's folder."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spgsurgeon.runs.layout import EVENTS


def add_hyperparameters(folder: Path, settings: Mapping[str, Any], scores: Mapping[str, float]) -> None:
    """Add a run's settings and what they came to, which TensorBoard's HParams compares, if it has events."""
    if not (folder / EVENTS).is_dir():
        return
    from torch.utils.tensorboard import SummaryWriter
    from torch.utils.tensorboard.summary import hparams

    plain = (bool, int, float, str)
    known = {key: value if isinstance(value, plain) else str(value) for key, value in settings.items()}
    with SummaryWriter(str(folder / EVENTS), filename_suffix=".hparams") as writer:
        for summary in hparams(known, dict(scores)):
            writer.file_writer.add_summary(summary)
        for tag, value in scores.items():
            writer.add_scalar(tag, value)


class EventFiles:
    """See `Tracker`. Of a resumed run TensorBoard shows nothing that was said of the steps that are done again."""

    def __init__(self, folder: Path, recipe: Mapping[str, Any]) -> None:
        self._folder = folder / EVENTS
        self._board: Any = None
        self._hook_before: Any = None

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """See `Tracker`."""
        board = self._open(step)
        for tag, value in numbers.items():
            board.add_scalar(tag, value, step)
        board.flush()

    def drop(self) -> None:
        """See `Tracker`: the writer's thread does not outlive a failure."""
        self._board = None

    def close(self) -> None:
        """See `Tracker`."""
        if self._board is not None:
            with suppress(OSError):  # all that it was given is on the disk, or was said not to be
                self._board.close()
            self._board = None
        if self._hook_before is not None:
            threading.excepthook, self._hook_before = self._hook_before, None

    def _open(self, step: int) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._keep_its_thread_quiet()
            self._board = SummaryWriter(str(self._folder), purge_step=step)
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
