"""Checkpoints beside the training: it waits while a copy is taken, and a thread writes the copy.

A checkpoint that can't be written, as on a full disk, is tried again; only a run that ends without it has failed.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.errors import SurgeonError
from spgsurgeon.runs.folder import Checkpoint, RunFolder

RETRY_SECONDS = 60.0
_END = object()
"""In the queue: the thread is to end."""


@dataclass(frozen=True)
class _Job:
    """A checkpoint to write, and the line of metrics that must be on the disk before it."""

    name: str
    checkpoint: Checkpoint
    best: bool
    line: dict[str, Any] | None


class CheckpointSaver:
    """Writes a run's checkpoints. `warn` is told, by the thread that trains, what could not be written.

    `steps` and `minutes` between two checkpoints; None leaves it to whoever calls `save`. `step` is the one that the
    training starts after.
    """

    def __init__(
        self, run: RunFolder, *, steps: int | None, minutes: float | None, step: int, warn: Callable[[str], None]
    ) -> None:
        self._run, self._steps, self._warn = run, steps, warn
        self._saved = step
        self._seconds = None if minutes is None else 60 * minutes
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._idle = threading.Event()
        self._idle.set()
        self._thread: threading.Thread | None = None
        self._unwritten: list[_Job] = []
        self._lines: list[dict[str, Any]] = []
        self._failure: SurgeonError | None = None
        self._crash: Exception | None = None
        self._told: str | None = None
        self._last = self._failed = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint should be made after this step: not while one is written, unless it goes by steps."""
        if step == self._saved:
            return False
        if self._steps is not None and step % self._steps == 0:
            return True
        if not self._idle.is_set():
            return False
        self._tell()
        now = time.monotonic()
        if self._failure is not None and now - self._failed >= RETRY_SECONDS:
            return True
        return self._seconds is not None and now - self._last >= self._seconds

    def save(
        self, step: int, checkpoint: Checkpoint, *, best: bool = False, line: dict[str, Any] | None = None
    ) -> None:
        """Copy the checkpoint and let the thread write it, after the one that is being written.

        `line` is added to the metrics first.
        """
        self._wait()
        job = _Job(f"{step:08d}", _copy(checkpoint), best, line)
        self._saved, self._last = step, time.monotonic()
        self._hand_over(job)

    def finish(self) -> None:
        """Wait until everything is written. Raises what the last try to write it failed with."""
        self._wait()
        if self._failure is not None:
            self._hand_over(None)
            self._wait()
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Wait for the checkpoint that is being written, if any, and end the thread: it holds the run's weights."""
        self._idle.wait()
        if self._thread is not None:
            self._queue.put(_END)
            self._thread.join()
            self._thread = None

    def _hand_over(self, job: _Job | None) -> None:
        """Let the thread write a job, or try again what could not be written."""
        if self._thread is None:
            # A daemon: who leaves at once does not wait for it, and a file that is not finished has no name yet.
            self._thread = threading.Thread(target=self._work, name="checkpoints", daemon=True)
            self._thread.start()
        self._idle.clear()
        self._queue.put(job)

    def _wait(self) -> None:
        self._idle.wait()
        self._tell()
        if self._crash is not None:
            raise self._crash

    def _tell(self) -> None:
        """Warn of a failure once, and of the end of it."""
        message = self._failure.message if self._failure else None
        if message is not None and self._told is None:
            self._warn(f"{message}; the training goes on, and tries again")
        elif message is None and self._told is not None:
            self._warn("checkpoints are written again")
        self._told = message

    # In the thread

    def _work(self) -> None:
        while (job := self._queue.get()) is not _END:
            self._attempt(job)
            self._idle.set()
            del job

    def _attempt(self, job: _Job | None) -> None:
        """Write the job, and what is left of earlier ones: every line, but of checkpoints only the best."""
        if job is not None:
            earlier = [] if job.best else [one for one in self._unwritten if one.best]
            self._unwritten = [*earlier[-1:], job]
            self._lines += [] if job.line is None else [job.line]
        try:
            while self._lines:
                self._run.add_metrics(self._lines[0])
                del self._lines[0]
            while self._unwritten:
                first = self._unwritten[0]
                self._run.save(first.name, first.checkpoint, best=first.best)
                del self._unwritten[0]
            self._failure = None
        except SurgeonError as error:
            self._failure, self._failed = error, time.monotonic()
        except Exception as error:
            self._crash = error


def _copy(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint with copies of its tensors in the host's memory."""
    tensors = (checkpoint.base, checkpoint.temporary, checkpoint.optimizer, checkpoint.ema)
    base, temporary, optimizer, ema = ({key: _host_copy(t) for key, t in part.items()} for part in tensors)
    for device in {t.device for part in tensors for t in part.values() if t.is_cuda}:
        torch.cuda.synchronize(device)  # the copies are on their way
    return replace(checkpoint, base=base, temporary=temporary, optimizer=optimizer, ema=ema)


def _host_copy(tensor: Tensor) -> Tensor:
    copy = torch.empty_like(tensor, device="cpu", requires_grad=False, pin_memory=tensor.is_cuda)
    return copy.copy_(tensor.detach(), non_blocking=tensor.is_cuda)
