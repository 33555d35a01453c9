"""Paired comparisons: differences in, an interval and a verdict out.

Each of the n differences is of two scores under the same circumstances: the same seed or, where there is one seed
only, the same picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import t as student

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
    margin = float(student.ppf((1 + CONFIDENCE) / 2, count - 1)) * error
    low, high = _bootstrap(values, resamples)
    detectable = margin + float(student.ppf(POWER, count - 1)) * error
    return PairedDifference(mean, mean - margin, mean + margin, low, high, detectable)


def agreeing(differences: Sequence[float]) -> int:
    """Return how many differences have the sign of their mean; where that is zero, how many are zero."""
    values = np.asarray(differences, dtype=float)
    return int((np.sign(values) == np.sign(values.mean())).sum())


def _bootstrap(values: np.ndarray[tuple[int], np.dtype[np.float64]], resamples: int) -> tuple[float, float]:
    """Return the percentile interval of the mean. Equal values are drawn together, so many samples take no longer."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=resamples)
    low, high = np.quantile(drawn @ distinct / len(values), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
