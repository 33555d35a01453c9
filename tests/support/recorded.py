"""Runs as their records say, made up."""

from __future__ import annotations

from typing import Any

from spgsurgeon.reporting.style import ACCENTS
from spgsurgeon.runs.records import EpochRecord, RunRecord

LABELS = ("0", "0.2", "0.36")


def line(epoch: int, *, cold: bool = False, **more: Any) -> dict[str, Any]:
    """Return a line of metrics of a run with two replicas; `epoch` counts from 1 within its phase."""
    before = epoch - 1
    return {
        "epoch": epoch,
        "phase": "cold" if cold else "train",
        "step": 12 * epoch,
        "loss": 1.5 / epoch,
        "step_cross_entropy": [1.0 / epoch, 0.5, None],
        "valid_share": [1.0, 0.8 + before / 100, 0.6],
        "mean_episode_length": 2.4,
        "accepted_units": dict(zip(LABELS, (20, 20, 60), strict=True)),
        "accepted_by_class": [[15, 5, 30], [5, 15, 30]],
        "pictures": {"shortest": [], "longest": []},
        "skipped_steps": 0,
        "unreadable_pictures": 0,
        "learning_rate": 0.0 if cold else 0.1,
        "seconds": 2.0,
        "data_seconds": 0.5,
        "images_per_second": 50.0 + before,
        "peak_memory_bytes": 10**9,
        "moments": None,
        "evaluation": None if cold else {"top1": 80.0 + before, "top5": 99.0, "loss": 0.5, "samples": 100},
        **more,
    }


def record(*lines: dict[str, Any], **more: Any) -> RunRecord:
    """Return a run with these lines."""
    number = more.get("number", 0)
    look = {"hue": number % len(ACCENTS), "twin": number // len(ACCENTS)}
    given = {"number": 0, "name": "spg", "planned": 3, "accepts": "dropout rate", "original": {"top1": 79.0}}
    return RunRecord(**given | look | {"epochs": [EpochRecord.model_validate(each) for each in lines]} | more)
