"""Who watches a run."""

from __future__ import annotations

from typing import Any, Protocol

from spgsurgeon.tasks import Scores


class Progress(Protocol):
    """Who is told how a run goes: give one to `train`. Only the first process of a run calls it.

    What a method raises ends the run as any error does, with its checkpoints kept.
    """

    def start(self, steps: int, done: int) -> None:
        """A run of at most `steps` steps begins, `done` of them behind it."""

    def original(self, scores: Scores) -> None:
        """The model was scored before the first step."""

    def advance(self) -> None:
        """A step is done."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch is done; `metrics` is its line, with the number from 1 that it has in its phase."""

    def warning(self, text: str) -> None:
        """Something is not as it should be, and the run goes on."""
