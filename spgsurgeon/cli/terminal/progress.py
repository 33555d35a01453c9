"""How a run goes, on stderr: live bars with the time left on a terminal, a line an epoch anywhere."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from spgsurgeon.cli.terminal.console import console, note, speaks, verbosity
from spgsurgeon.cli.terminal.text import duration, score_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_POLL_SECONDS = 1.0
_QUIET_SECONDS = 60.0
"""So long is nothing said of a run's steps where there is no bar."""


class Bar:
    """A bar on a terminal, nothing elsewhere or with --quiet. Until its length is known it only moves.

    Use as a context manager. `transient` takes it away at the end.
    """

    def __init__(self, doing: str, unit: str, *, transient: bool = True) -> None:
        self._doing, self._unit, self._transient = doing, unit, transient
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if verbosity.quiet or not speaks() or not console(stderr=True).is_terminal:
            return self
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn(self._unit),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console(stderr=True),
            transient=self._transient,
            expand=True,
        )
        self._task = self._bar.add_task(self._doing, total=None)
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def live(self) -> bool:
        """Whether it is drawn."""
        return self._bar is not None

    def told(self, done: int, total: int | None, doing: str | None = None) -> None:
        """Show that so much is done."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=done, total=total, description=doing or self._doing)

    def advance(self) -> None:
        """Move the bar by one."""
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task)


class RunProgress:
    """Implements `spgsurgeon.training.Progress`. Use as a context manager; silent with --quiet."""

    def __init__(self) -> None:
        self._silent = verbosity.quiet or not speaks()
        self._steps, self._most = 0, 0
        self._began = self._said = time.monotonic()
        self._bar = Bar("opening model and data", "steps", transient=False)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def start(self, steps: int, done: int) -> None:
        """Show a bar of `steps` steps."""
        if done:
            note(f"goes on after step {done} of at most {steps}")
        self._bar.told(done, steps, "training")
        self._most = steps - done

    def original(self, scores: dict[str, Any]) -> None:
        """Print the score that the run is measured against."""
        if not self._silent:
            console(stderr=True).print(f"original   {score_line(scores)}")

    def advance(self) -> None:
        """Move the bar by a step; where there is none, say now and then how far it is."""
        self._bar.advance()
        self._steps += 1
        now = time.monotonic()
        if self._steps == 1:
            self._began = self._said = now  # what came before was no step
        elif not (self._bar.live or self._silent) and now - self._said >= _QUIET_SECONDS:
            self._said = now
            each = (now - self._began) / (self._steps - 1)
            left = duration(each * (self._most - self._steps))
            console(stderr=True).print(f"step {self._steps:,} of {self._most:,}, {each:.2g} s each, about {left} left")

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Print the epoch's line."""
        if self._silent:
            return
        shares = " ".join(f"{100 * share:.1f}" for share in metrics["valid_share"][1:])
        from spgsurgeon.runs import epoch_name
        from spgsurgeon.tasks import LOSS

        name = epoch_name(metrics["phase"])
        parts = [f"{name} {metrics['epoch']:3d}", f"loss {LOSS.number(metrics['loss'])}"]
        parts += [f"valid {shares} %"] if shares else []
        parts += [score_line(metrics["evaluation"])] if metrics["evaluation"] else []
        parts += [f"lr {metrics['learning_rate']:.3g}", f"{metrics['images_per_second']:.0f} samples/s"]
        console(stderr=True).print("  ".join(parts))

    def warning(self, text: str) -> None:
        """Say what is not as it should be."""
        if not self._silent:
            note(text)


class ComparisonProgress:
    """A bar of all epochs of a comparison, with the runs that are done and the epochs of those that go on.

    It looks at the comparison's folder, where runs write what they did: they are processes of their own, and one that
    is killed can't be waited for.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._bar = folder, Bar("checking the arms", "epochs")
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._bar.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._bar.__exit__()

    def _watch(self) -> None:
        while not self._end.wait(_POLL_SECONDS):
            self.look()

    def look(self) -> None:
        """Show how far the comparison is, if it has begun."""
        from spgsurgeon.comparing import how_far

        found = how_far(self._folder)
        if found is None:
            return
        running = ", ".join(f"{name} {done}/{epochs}" for name, done, epochs in found.running[:2])
        doing = f"run {found.runs_done} of {found.runs}" + (f" ({running})" if running else "")
        self._bar.told(found.epochs_done, found.epochs, doing if found.runs_done < found.runs else "scoring")
