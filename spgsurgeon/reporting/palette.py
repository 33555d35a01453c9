"""One colour an arm on the whole page: in a comparison's figures and tables, and in those of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from spgsurgeon.comparing import ComparisonRecord
from spgsurgeon.reporting.style import color_of
from spgsurgeon.runs import RunRecord


def with_hues(
    runs: Sequence[RunRecord], arms: Sequence[str | None], comparisons: Sequence[ComparisonRecord] = ()
) -> tuple[list[RunRecord], list[ComparisonRecord]]:
    """Return the records with their colours; `arms` are those that the runs are of.

    A run of no arm goes by its name: a run called plain has the colour of an arm called plain.
    """
    names = [arm or run.name for run, arm in zip(runs, arms, strict=True)]
    known = dict.fromkeys([*(arm for comparison in comparisons for arm in comparison.changes), *names])
    hues = {name: hue for hue, name in enumerate(known)}
    before = Counter[str]()
    colored = []
    for run, name in zip(runs, names, strict=True):
        colored.append(replace(run, hue=hues[name], twin=before[name]))
        before[name] += 1
    return colored, [replace(comparison, hues=hues) for comparison in comparisons]


def arm_colors(comparison: ComparisonRecord) -> dict[str, str]:
    """Return the colour of each arm of a comparison."""
    arms = dict.fromkeys([*(comparison.document or {"arms": {}})["arms"], *comparison.changes])
    return {arm: color_of(comparison.hues.get(arm, place)) for place, arm in enumerate(arms)}
