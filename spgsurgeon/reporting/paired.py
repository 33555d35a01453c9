"""Paired comparisons: differences in, an interval and a verdict out.

Each of the n differences is of two scores under the same circumstances: the same seed or, where there is one seed
only, the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np

CONFIDENCE, POWER = 0.95, 0.8
RESAMPLES = 10_000

Verdict = Literal["gain", "loss", "no difference shown"]


@dataclass(frozen=True)
class PairedDifference:
    """A mean difference with its 95 % intervals, `low` to `high` by Student's t and the other one by bootstrap.

    `detectable` is the smallest true difference that four in five such comparisons would have shown, by the spread
    found here: (t_0.975 + t_0.8) standard errors.
    """

    mean: float
    low: float
    high: float
    bootstrap_low: float
    bootstrap_high: float
    detectable: float

    @property
    def verdict(self) -> Verdict:
        """What Student's interval shows: a difference only where it leaves zero out."""
        if self.low > 0:
            return "gain"
        return "loss" if self.high < 0 else "no difference shown"


def paired_difference(
    differences: Sequence[float], *, resolution: float = 0.0, resamples: int = RESAMPLES
) -> PairedDifference:
    """Return what n >= 2 differences show.

    `resolution` is the step that both scores are rounded to, as 100 / samples is of a percentage: the variance of that
    rounding, resolution**2 / 6 for a difference, is added to the one found. Without it two seeds that happen to differ
    alike would have an interval of no width, and show a gain.
    """
    values = np.asarray(differences, dtype=float)
    count = len(values)
    if count < 2:
        raise ValueError(f"{count} differences have no spread; it takes two")
    mean = float(values.mean())
    error = math.sqrt((float(values.var(ddof=1)) + resolution**2 / 6) / count)
    margin = student_quantile((1 + CONFIDENCE) / 2, count - 1) * error
    low, high = _bootstrap(values, resamples)
    detectable = margin + student_quantile(POWER, count - 1) * error
    return PairedDifference(mean, mean - margin, mean + margin, low, high, detectable)


def agreeing(differences: Sequence[float]) -> int:
    """Return how many differences have the sign of their mean; where that is zero, how many are zero."""
    values = np.asarray(differences, dtype=float)
    return int((np.sign(values) == np.sign(values.mean())).sum())


@cache
def student_quantile(probability: float, freedom: int) -> float:
    """Return the t that Student's distribution of whole degrees of freedom stays below with this probability > 0.5."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < 2 * probability - 1:
        high *= 2
    for _ in range(80):  # beyond a double's precision
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, freedom) < 2 * probability - 1 else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """Return the probability of [-t, t], by its finite series (Abramowitz and Stegun, 26.7.3 and 26.7.4)."""
    angle, odd = math.atan(t / math.sqrt(freedom)), freedom % 2
    terms = np.arange(1, freedom // 2)
    ratios = (2 * terms - 1 + odd) / (2 * terms + odd) * math.cos(angle) ** 2
    series = 1 + float(np.cumprod(ratios).sum())
    if not odd:
        return math.sin(angle) * series
    return 2 / math.pi * (angle + (math.sin(angle) * math.cos(angle) * series if freedom > 1 else 0.0))


def _bootstrap(values: np.ndarray[tuple[int], np.dtype[np.float64]], resamples: int) -> tuple[float, float]:
    """Return the percentile interval of the mean. Equal values are drawn together, so many samples take no longer."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
