"""`spgsurgeon episodes`: which training samples a run's episodes ended early for, or never got beyond the base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spgsurgeon.errors import UsageError
from spgsurgeon.runs import Episodes, check_is_run, read_episodes, read_run, step_labels


def episodes(run: Path, worst: int | None = 50) -> dict[str, Any]:
    """Return the document of `episodes --json`: the `worst` samples of a run (None: all), the least accepted first.

    That is by the mean of the steps that epochs accepted for a sample, then by the first epoch in which the base was
    right on it. Raises UsageError for a folder that recorded none.
    """
    check_is_run(run)
    found, record = read_episodes(run), read_run(run, run.name, 0)
    if not found.epochs:
        raise UsageError(f"{run} has recorded no epoch yet", hint="ask again when its first epoch has ended")
    seen = [one for one in (_sample(found, number) for number in range(len(found.names))) if one is not None]
    ranked = sorted(seen, key=_rank)
    return {
        "run": str(run),
        "epochs": list(found.epochs),
        "accepts": record.accepts,
        "steps": step_labels(record.trained[-1]) if record.trained else [],
        "samples": len(found.names),
        "seen": len(seen),
        "never": sum(one["first"] is None for one in seen),
        "worst": [one | {"class": record.class_name(one["label"])} for one in ranked[:worst]],
    }


def _sample(found: Episodes, number: int) -> dict[str, Any] | None:
    """Return what is known of a sample; None if no epoch has seen it."""
    steps = found.steps_of(number)
    known = [step for step in steps if step is not None]
    if not known:
        return None
    return {
        "sample": number,
        "name": found.names[number],
        "label": found.labels[number],
        "mean_step": sum(known) / len(known),
        "first": _first_right(list(found.epochs), steps),
        "accepted": steps,
    }


def _first_right(epochs: Sequence[int], steps: Sequence[int | None]) -> int | None:
    """Return the first epoch in which the base itself was right; None if it never was."""
    return next((epoch for epoch, step in zip(epochs, steps, strict=True) if step), None)


def _rank(one: dict[str, Any]) -> tuple[float, float, int]:
    first = one["first"]
    return one["mean_step"], -first if first is not None else float("-inf"), one["sample"]
