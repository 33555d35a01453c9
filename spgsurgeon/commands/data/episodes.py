"""`spgsurgeon episodes`: which training samples a run's episodes ended early for, or never got beyond the base."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from spgsurgeon.errors import UsageError
from spgsurgeon.runs import check_is_run, least_accepted, length_labels, read_episodes, read_run


def episodes(run: Path, worst: int | None = 50) -> dict[str, Any]:
    """Return the document of `episodes --json`: the `worst` samples of a run (None: all), the least accepted first.

    That is by the mean of the steps that epochs accepted for a sample, then by the first epoch in which the base was
    right on it. Raises UsageError for a folder that recorded none.
    """
    check_is_run(run)
    found, record = read_episodes(run), read_run(run, run.name, 0)
    if not found.epochs:
        raise UsageError(f"{run} has recorded no epoch yet", hint="ask again when its first epoch has ended")
    ranked = least_accepted(found)
    return {
        "run": str(run),
        "epochs": list(found.epochs),
        "accepts": record.accepts,
        "steps": length_labels(record.trained[-1]) if record.trained else [],
        "samples": len(found.names),
        "seen": len(ranked),
        "never": sum(one.first is None for one in ranked),
        "worst": [asdict(one) | {"class": record.class_name(one.label)} for one in ranked[:worst]],
    }
