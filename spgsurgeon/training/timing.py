"""How long a training step takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from spgsurgeon.loading import ModelRequest
from spgsurgeon.runtime import join_processes
from spgsurgeon.training.assembling import make_retraining, switches
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.preparing import prepare
from spgsurgeon.training.settling import settle_recipe
from spgsurgeon.training.statistics import EpisodeStatistics

_WARM_UP = 2  # steps that are not timed


def time_steps(model: str, *, recipe: str | Path, overrides: Sequence[str], count: int) -> float:
    """Return the seconds of a training step of `model` by `recipe` with `overrides`, the mean of `count`.

    Reading the data is part of it. Nothing is written. Raises NonFiniteError as training does.
    """
    settled = settle_recipe(model, recipe, overrides)
    with switches(settled), join_processes(settled.training.device) as processes:
        retraining = make_retraining(prepare(settled, ModelRequest(model)), processes)
        try:
            return time_retraining(retraining, count)
        finally:
            retraining.close(at_once=True)


def time_retraining(retraining: Retraining, count: int, warm_up: int = _WARM_UP) -> float:
    """Return the seconds that one of `count` steps takes, after some that are not timed.

    They train the model, which is of no use afterwards.
    """
    classes = retraining.batches.source.classes
    statistics = EpisodeStatistics(retraining.grafted.steps, len(classes), retraining.processes, None)
    accumulate, batches = retraining.settings.accumulate, retraining.batches.epoch(0)
    retraining.enter_training()
    started = 0.0
    for step in range(warm_up + count):
        if step == warm_up:
            retraining.settle()
            started = time.perf_counter()
        parts = list(islice(batches, accumulate))
        if len(parts) < accumulate:  # an epoch is shorter than that
            batches = retraining.batches.epoch(step + 1)
            parts = list(islice(batches, accumulate))
        retraining.take_step(parts, statistics)
    retraining.settle()
    statistics.totals()  # waits for the device
    return (time.perf_counter() - started) / count
