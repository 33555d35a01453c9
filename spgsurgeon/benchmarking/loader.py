"""Training steps fed by the loader against steps on images that lie on the device already."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from statistics import median
from typing import Any

from spgsurgeon.benchmarking.arms import Arm, wait_for
from spgsurgeon.benchmarking.blocks import Seconds, rate, throughput_ratio, time_blocks
from spgsurgeon.data import Batch, TrainingBatches
from spgsurgeon.runtime import deterministic_algorithms
from spgsurgeon.training import EpisodeStatistics, Retraining

LOADED, RESIDENT = "end_to_end", "synthetic"


def time_loader(
    arm: Arm, retraining: Retraining, *, images: int, blocks: int, steps: int, workers: int
) -> dict[str, Any]:
    """Return the document of steps of `retraining` with its loader against steps of `arm`, the same without.

    `images` is how many a step takes. A block with the loader reads just what it takes, so that the workers rest in
    the others, and its first steps, until each worker has delivered, are not timed.
    """
    steps = max(steps, 2 * workers)
    loaded = _LoadedSteps(retraining, untimed=workers + 1, steps=steps, deterministic=arm.deterministic)
    try:
        loaded.seconds()  # starts the workers, and fills what the source and the system keep
        loaded.waits.clear()
        timed = time_blocks({LOADED: loaded.seconds, RESIDENT: lambda: arm.seconds(steps)}, blocks)
    finally:
        retraining.close(at_once=True)
    return {
        "images_per_second": rate(timed, LOADED, steps * images),
        "synthetic_images_per_second": rate(timed, RESIDENT, steps * images),
        "ratio": throughput_ratio(timed, LOADED, RESIDENT),
        "waiting_share": median(waited / block[LOADED].wall for waited, block in zip(loaded.waits, timed, strict=True)),
        "workers": workers,
        "steps": steps,
    }


class _LoadedSteps:
    """Takes steps on what the loader reads; `waits` has the seconds that each block waited for it."""

    def __init__(self, retraining: Retraining, *, untimed: int, steps: int, deterministic: bool) -> None:
        self.waits: list[float] = []
        self._retraining, self._untimed, self._steps, self._deterministic = retraining, untimed, steps, deterministic
        classes = retraining.batches.source.classes
        self._statistics = EpisodeStatistics(retraining.grafted.steps, len(classes), retraining.processes)
        self._epoch = 0

    def seconds(self) -> Seconds:
        """Take a block's steps and return what the timed ones took."""
        retraining, device = self._retraining, self._retraining.processes.device
        accumulate = retraining.settings.accumulate
        batches = self._read(retraining.batches, (self._untimed + self._steps) * accumulate)
        waited, started = 0.0, Seconds.now()
        with deterministic_algorithms(self._deterministic):
            for step in range(self._untimed + self._steps):
                if step == self._untimed:
                    wait_for(device)
                    waited, started = 0.0, Seconds.now()
                asked = time.perf_counter()
                parts = list(islice(batches, accumulate))
                waited += time.perf_counter() - asked
                retraining.take_step(parts, self._statistics)
            wait_for(device)
        self.waits.append(waited)
        return Seconds.now().since(started)

    def _read(self, batches: TrainingBatches, count: int) -> Iterator[Batch]:
        """Yield `count` batches: the last ones of an epoch, of as many epochs as it takes."""
        while count:
            part = min(count, batches.batches_per_epoch)
            count -= part
            self._epoch += 1  # before: nobody asks what comes after the last one
            yield from batches.epoch(self._epoch, batches.batches_per_epoch - part)
