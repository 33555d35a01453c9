"""Between two steps: whether the run is saved there, or left, on all of its processes at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NoReturn, TypeVar

from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe import CheckpointSection
from spgsurgeon.runs import CheckpointSaver, RunFolder
from spgsurgeon.runtime import InterruptedRunError, Processes, StopNow, StopRequest, signal_name
from spgsurgeon.training.progress import Progress
from spgsurgeon.training.state import TrainingState

Read = TypeVar("Read")


class Safekeeping:
    """Saves a run's `state`, once it was started with a folder, and leaves the run if a signal asks for that."""

    def __init__(self, state: TrainingState, processes: Processes, progress: Progress | None) -> None:
        self._state, self._processes, self._progress = state, processes, progress
        self._run: RunFolder | None = None
        self._saver: CheckpointSaver | None = None
        self.request = StopRequest()

    def start(self, run: RunFolder, every: CheckpointSection) -> None:
        """Begin to write checkpoints into the folder of a run, as often as that says; the first process does."""
        self._run = run
        if self._processes.leads:
            self._saver = CheckpointSaver(
                run, steps=every.steps, minutes=every.minutes, step=self._state.counters.step, warn=self.warn
            )

    @property
    def alone(self) -> bool:
        """Whether this process may leave without the others' knowing."""
        return self._processes.world_size == 1

    def at_once(self, wanted: bool = True) -> AbstractContextManager[None]:
        """Let a signal raise StopNow inside the block, if this process may leave alone; see `StopRequest`."""
        return self.request.at_once(wanted and self.alone)

    def unless_told_to_stop(self, read: Callable[[], Read]) -> Read | None:
        """Return what `read` returns; None if the run was told to stop meanwhile, to be left after the step."""
        try:
            with self.at_once():
                return read()
        except StopNow:
            return None
        except SurgeonError:
            if self.request.number is None:  # loader workers die of a signal to the whole process group
                raise
            return None

    def or_leave(self, work: Callable[[], Read]) -> Read:
        """Return what `work` returns; leave the run, saved, if it is told to stop meanwhile."""
        try:
            with self.at_once():
                return work()
        except StopNow:
            self.leave()
        except SurgeonError as error:
            if isinstance(error, InterruptedRunError) or self.request.number is None:
                raise
            self.leave()  # loader workers die of a signal to the whole process group

    def wanted(self) -> int:
        """Return what is to be done after this step, the same on all processes.

        0 is nothing, 1 to save, and from 2 on twice the number of the signal to leave by, with or without 1.
        """
        due = self._saver is not None and self._saver.due(self._state.counters.step)
        return self._processes.largest(2 * (self.request.number or 0) + due)

    def stop_if_asked(self) -> None:
        """Leave if any process was told to; each calls this equally often."""
        number = self._processes.largest(self.request.number or 0)
        if number:
            self.leave(number)

    def save(self, *, best: bool = False, line: dict[str, Any] | None = None) -> None:
        """Let the state be written, after a `line` of metrics."""
        if self._saver:
            self._saver.save(self._state.counters.step, self._state.checkpoint(), best=best, line=line)

    def finish(self) -> None:
        """Wait until everything is written. Raises what the last try to write it failed with."""
        if self._saver:
            self._saver.finish()

    def close(self, *, at_once: bool) -> None:
        """Unless it must be `at_once`, wait for the checkpoint that is being written."""
        if self._saver and not at_once:
            self._saver.close()

    def leave(self, number: int | None = None, *, save: bool = True) -> NoReturn:
        """Raise InterruptedRunError for the signal of that number, else the one that came here.

        What was done is saved before, if wanted.
        """
        number = number or self.request.number
        assert number is not None
        hint = "resume it by the same command with --resume" if self._run else None
        message = f"stopped by {signal_name(number)} after step {self._state.counters.step}"
        if self._saver:
            try:
                if save:
                    self.save()
                self._saver.finish()
            except SurgeonError as error:
                message += f"; that step could not be saved, an earlier one is: {error.message}"
        raise InterruptedRunError(message, hint=hint, number=number)

    def warn(self, text: str) -> None:
        """Tell it, once for all processes."""
        if self._progress and self._processes.leads:
            self._progress.warning(text)
