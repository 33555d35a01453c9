"""Intervals and verdicts of paired comparisons, against scipy and by how often they are wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spgsurgeon.comparing.statistics import agreeing, paired_difference, resampled_difference

COMPARISONS = 2000


@pytest.mark.parametrize("count", [2, 3, 5, 12, 500])
def test_the_interval_is_scipys(count: int) -> None:
    plain, arm = np.random.default_rng(count).normal([[90.0], [90.5]], 1.0, (2, count))
    found = paired_difference(arm - plain)
    expected = stats.ttest_rel(arm, plain).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx((arm - plain).mean())
    assert (found.verdict() == "no difference shown") == (stats.ttest_rel(arm, plain).pvalue > 0.05)


def test_the_bootstrap_is_scipys() -> None:
    differences = np.random.default_rng(1).normal(0.3, 1.0, 40)
    found = paired_difference(differences)
    expected = stats.bootstrap((differences,), np.mean, method="percentile", rng=2).confidence_interval
    spread = differences.std() / math.sqrt(40)
    assert (found.bootstrap_low, found.bootstrap_high) == pytest.approx((expected.low, expected.high), abs=0.1 * spread)


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.9, 1.0, 1.1, 1.0], "gain"),
        ([-0.9, -1.0, -1.1, -1.0], "loss"),
        ([0.9, -1.0, 1.1, -0.5], "no difference shown"),
        ([0.0, 0.0, 0.0], "no difference shown"),
    ],
)
def test_verdicts(differences: list[float], verdict: str) -> None:
    assert paired_difference(differences).verdict() == verdict


def _scores(generator: np.random.Generator, seeds: int, samples: int, gain: float = 0.0) -> tuple[np.ndarray, ...]:
    """Return plain's scores and an arm's, percent [comparisons, seeds]: a seed's luck is shared, the rest is not."""
    luck = generator.normal(90.0, 1.0, (COMPARISONS, seeds))
    chances = [luck + generator.normal(shift, 0.3, luck.shape) for shift in (0.0, gain)]
    return tuple(100 * generator.binomial(samples, np.clip(chance, 0, 100) / 100) / samples for chance in chances)


@pytest.mark.slow
@pytest.mark.parametrize("samples", [100, 697, 10_000])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_identical_arms_are_told_apart_in_one_of_twenty_comparisons_at_most(seeds: int, samples: int) -> None:
    plain, arm = _scores(np.random.default_rng(seeds * samples), seeds, samples)
    verdicts = [paired_difference(d, resolution=100 / samples, resamples=1).verdict() for d in arm - plain]
    false = sum(verdict != "no difference shown" for verdict in verdicts)
    print(f"{seeds} seeds, {samples} samples: {100 * false / COMPARISONS:.2f} % false verdicts")
    assert false / COMPARISONS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / COMPARISONS)


def test_one_seed_over_many_pictures_is_wrong_as_seldom() -> None:
    generator = np.random.default_rng(3)
    plain, arm = generator.random((2, COMPARISONS, 697)) < 0.9
    differences = 100.0 * arm - 100.0 * plain
    false = sum(paired_difference(d, resamples=1).verdict() != "no difference shown" for d in differences)
    assert false / COMPARISONS <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / COMPARISONS)


def _overlaps(generator: np.random.Generator, pictures: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return hits and unions [2, images, classes] of two models that are equally good: each has luck of its own."""
    pixels = generator.multinomial(2000, generator.dirichlet(np.full(classes, 0.3), pictures))
    chances = generator.beta(8, 2, pixels.shape) + generator.normal(0, 0.1, (2, *pixels.shape))
    hits = generator.binomial(pixels, np.clip(chances, 0, 1))
    missed = (pixels - hits).sum(-1, keepdims=True)
    return hits, pixels + generator.multinomial(missed[..., 0], np.full(classes, 1 / classes))


def test_one_seed_over_many_masks_is_wrong_as_seldom() -> None:
    generator, comparisons, false = np.random.default_rng(5), 400, 0
    for _ in range(comparisons):
        hits, unions = _overlaps(generator, 30, 5)

        def difference(drawn: np.ndarray, hits: np.ndarray = hits, unions: np.ndarray = unions) -> np.ndarray:
            plain, arm = (100 * ((drawn @ h) / (drawn @ u)).mean(1) for h, u in zip(hits, unions, strict=True))
            return arm - plain

        false += resampled_difference(difference, 30, resamples=300).verdict() != "no difference shown"
    assert false / comparisons <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / comparisons)


def test_resampling_a_mean_finds_what_the_mean_of_differences_shows() -> None:
    differences = np.random.default_rng(6).normal(0.4, 1.0, 60)
    expected = paired_difference(differences)
    found = resampled_difference(lambda drawn: drawn @ differences / 60, 60)
    assert found.mean == pytest.approx(expected.mean)
    for key in ("low", "high", "bootstrap_low", "bootstrap_high", "detectable"):
        assert getattr(found, key) == pytest.approx(getattr(expected, key), abs=0.02)


def test_a_difference_as_large_as_detectable_is_shown_four_times_in_five() -> None:
    generator = np.random.default_rng(4)
    spread, seeds = 1.0, 5
    true = (2.7764 + 0.9410) * spread / math.sqrt(seeds)
    shown = sum(
        paired_difference(d, resamples=1).verdict() == "gain"
        for d in generator.normal(true, spread, (COMPARISONS, seeds))
    )
    assert shown / COMPARISONS == pytest.approx(0.8, abs=0.05)


def test_seeds_that_happen_to_differ_alike_show_nothing() -> None:
    assert paired_difference([0.2, 0.2], resolution=0.2).verdict() == "no difference shown"
    assert paired_difference([0.2, 0.2]).verdict() == "gain"


def test_agreement_counts_signs() -> None:
    assert agreeing([1.0, 2.0, -0.5]) == 2
    assert agreeing([-1.0, -2.0, 0.0]) == 2
    assert agreeing([0.0, 0.0]) == 2


def test_one_difference_has_no_interval() -> None:
    with pytest.raises(ValueError, match="it takes two"):
        paired_difference([1.0])
    with pytest.raises(ValueError, match="it takes two"):
        resampled_difference(lambda drawn: drawn.sum(1), 1)
