"""Timing in interleaved blocks, and what their ratios show."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np

_LONG_ENOUGH = 0.25  # seconds that a block lasts, where its number of steps is left open
_MOST_STEPS = 100
_RESAMPLES = 9_999


class Seconds(NamedTuple):
    """What something took: by the clock, and of this process's time on the processors, all threads together."""

    wall: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        """Return where both clocks stand."""
        return cls(time.perf_counter(), time.process_time())

    def since(self, start: Seconds) -> Seconds:
        """Return what went by between two readings."""
        return Seconds(self.wall - start.wall, self.processor - start.processor)


Blocks = list[dict[str, Seconds]]
"""What each arm took, block by block."""


def steps_that_last(step_seconds: float) -> int:
    """Return how many steps make a block that is long enough to time."""
    return max(1, min(_MOST_STEPS, math.ceil(_LONG_ENOUGH / step_seconds)))


def time_blocks(arms: Mapping[str, Callable[[], Seconds]], blocks: int, seed: int = 0) -> Blocks:
    """Return what each arm's call returns, `blocks` times, each time in an order drawn by `seed`.

    What else the machine does falls on all arms alike so.
    """
    order, draw = list(arms), random.Random(seed)
    timed: Blocks = []
    for _ in range(blocks):
        draw.shuffle(order)
        timed.append({name: arms[name]() for name in order})
    return timed


def rate(blocks: Blocks, arm: str, images: int) -> float:
    """Return the median of the images a second, where each block takes `images`."""
    return images / median(block[arm].wall for block in blocks)


def throughput_ratio(blocks: Blocks, of: str, to: str) -> dict[str, float]:
    """Return the throughput of arm `of` over that of arm `to`, paired block by block.

    `median` over the blocks, `low` and `high` are the ends of its 95 % bootstrap interval.
    """
    return _median_interval([block[to].wall / block[of].wall for block in blocks])


def processor_ratio(blocks: Blocks, of: str, to: str) -> dict[str, float]:
    """Return the same by the time on the processors, which other programs on the machine disturb less."""
    return _median_interval([block[to].processor / block[of].processor for block in blocks])


def _median_interval(values: Sequence[float]) -> dict[str, float]:
    drawn = np.random.default_rng(0).choice(np.asarray(values), size=(_RESAMPLES, len(values)))
    low, high = np.quantile(np.median(drawn, axis=1), [0.025, 0.975])
    return {"median": float(median(values)), "low": float(low), "high": float(high)}
