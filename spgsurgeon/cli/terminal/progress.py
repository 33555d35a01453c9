"""How a run goes, on stderr: a live bar on a terminal, a line an epoch anywhere."""

from __future__ import annotations

from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from spgsurgeon.cli.terminal.console import console, note, speaks, verbosity
from spgsurgeon.cli.terminal.text import score_line


class RunProgress:
    """Implements the loop's `Progress`. Use as a context manager; silent with --quiet or --json."""

    def __init__(self) -> None:
        self._silent = verbosity.quiet or verbosity.json or not speaks()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> RunProgress:
        if not self._silent and console(stderr=True).is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("steps"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=console(stderr=True),
            )
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def start(self, steps: int, done: int) -> None:
        """Show a bar of `steps` steps."""
        if done:
            note(f"goes on after step {done} of at most {steps}")
        if self._bar:
            self._task = self._bar.add_task("training", total=steps, completed=done)

    def original(self, scores: dict[str, Any]) -> None:
        """Print the score that the run is measured against."""
        if not self._silent:
            console(stderr=True).print(f"original   {score_line(scores)}")

    def advance(self) -> None:
        """Move the bar by a step."""
        if self._bar and self._task is not None:
            self._bar.advance(self._task)

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Print the epoch's line."""
        if self._silent:
            return
        shares = " ".join(f"{100 * share:.1f}" for share in metrics["valid_share"][1:])
        name = "cold epoch" if metrics["phase"] == "cold" else "epoch"
        parts = [f"{name} {metrics['epoch']:3d}", f"loss {metrics['loss']:.4f}"]
        parts += [f"valid {shares} %"] if shares else []
        parts += [score_line(metrics["evaluation"])] if metrics["evaluation"] else []
        parts += [f"lr {metrics['learning_rate']:.3g}", f"{metrics['images_per_second']:.0f} samples/s"]
        console(stderr=True).print("  ".join(parts))

    def warning(self, text: str) -> None:
        """Say what is not as it should be."""
        if not self._silent:
            note(text)
