"""Paired comparisons: differences in, an interval and a verdict out.

Each of the n differences is of two scores under the same circumstances: the same seed or, where there is one seed
only, the same image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

CONFIDENCE, POWER = 0.95, 0.8
RESAMPLES = 10_000
_BLOCK = 2**22  # how many numbers of times are drawn at once

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

    def verdict(self, *, higher_is_better: bool = True) -> Verdict:
        """Return what Student's interval shows: a difference only where it leaves zero out."""
        if self.low > 0 or self.high < 0:
            return "gain" if (self.low > 0) is higher_is_better else "loss"
        return "no difference shown"


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
    error = math.sqrt((float(values.var(ddof=1)) + resolution**2 / 6) / count)
    return _with_intervals(float(values.mean()), error, count, _bootstrap(values, resamples))


def resampled_difference(
    difference: Callable[[NDArray[np.float64]], NDArray[np.float64]], count: int, *, resamples: int = RESAMPLES
) -> PairedDifference:
    """Return what a score of `count` >= 2 samples together shows that is not a mean of theirs, as mean IoU.

    `difference` gives that of two models, [R], over images that are there so many times as it is given, [R, count].
    Images are drawn with replacement, the same for both models. Student's interval is about the difference over all
    images, with the spread among the resamples as its standard error.
    """
    if count < 2:
        raise ValueError(f"{count} images have no spread; it takes two")
    generator, drawn = np.random.default_rng(0), []
    block = max(1, _BLOCK // count)
    for start in range(0, resamples, block):
        times = generator.multinomial(count, np.full(count, 1 / count), size=min(block, resamples - start))
        drawn.append(difference(times.astype(float)))
    found = np.concatenate(drawn)
    mean = float(difference(np.ones((1, count)))[0])
    error = float(found.std()) * math.sqrt(count / (count - 1))
    return _with_intervals(mean, error, count, _percentiles(found))


def agreeing(differences: Sequence[float]) -> int:
    """Return how many differences have the sign of their mean; where that is zero, how many are zero."""
    values = np.asarray(differences, dtype=float)
    return int((np.sign(values) == np.sign(values.mean())).sum())


def _with_intervals(mean: float, error: float, count: int, bootstrap: tuple[float, float]) -> PairedDifference:
    """Return the difference with Student's interval by its standard error, of `count` values."""
    margin = student_quantile((1 + CONFIDENCE) / 2, count - 1) * error
    detectable = margin + student_quantile(POWER, count - 1) * error
    return PairedDifference(mean, mean - margin, mean + margin, *bootstrap, detectable)


def student_quantile(probability: float, freedom: int) -> float:
    """Return the quantile, at `probability` from 0.5 to 1, of Student's t with so many degrees of freedom.

    Bisection of the distribution function, which for whole degrees of freedom is a finite sum (Abramowitz and Stegun,
    26.7.3 and 26.7.4): SciPy would be installed for nothing else.
    """
    low, high = 0.0, math.pi / 2  # of the angle whose tangent is t over the root of the degrees of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if _within(middle, freedom) > 2 * probability - 1 else (middle, high)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """Return the probability that |t| is at most the root of `freedom` times the tangent of `angle`."""
    odd, cosine = freedom % 2, math.cos(angle)
    steps = np.arange(1 + odd, freedom - 1, 2, dtype=float)  # each term is the last one times step / (step + 1) cos^2
    terms = np.cumprod(np.concatenate([[cosine if odd else 1.0], steps / (steps + 1) * cosine**2]))
    total = float(terms.sum()) * math.sin(angle)
    if not odd:
        return total
    return 2 / math.pi * (angle + (total if freedom > 1 else 0.0))


def _bootstrap(values: NDArray[np.float64], resamples: int) -> tuple[float, float]:
    """Return the percentile interval of the mean. Equal values are drawn together, so many samples take no longer."""
    distinct, counts = np.unique(values, return_counts=True)
    drawn = np.random.default_rng(0).multinomial(len(values), counts / len(values), size=resamples)
    return _percentiles(drawn @ distinct / len(values))


def _percentiles(resampled: NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
