"""Runs as figures: numbers in, matplotlib figures out, without pyplot and whatever the user's own style is.

Training epochs lie at their numbers; those of a cold start, shaded, at 0 and below, and bear their own numbers there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from spgsurgeon.reporting.style import (
    HEIGHT,
    INK,
    QUIET,
    SHADE,
    WIDTH,
    Line,
    accent,
    dash,
    label_ends,
    legend,
    name_lines,
    shades,
    shortened,
    titled_axes,
)
from spgsurgeon.runs import EpochRecord, RunRecord, length_labels, step_labels
from spgsurgeon.tasks import Metric

SHOWN_CLASSES = 24
"""More classes than this are shown by their extremes."""
_BAR = 0.19  # inches
_TICKS = 16  # up to as many epochs have one each

Points = Sequence[tuple[float, float | None]]

# All runs over each other


def score_figure(runs: Sequence[RunRecord], metric: Metric) -> Figure:
    """Return the runs' scores by epoch. A ring is the original's, a filled one the best."""
    figure, axes = _over_epochs(metric.title, runs)
    lines = []
    for run in runs:
        found = [(run.place(e), e.evaluation.get(metric.name)) for e in run.trained if e.evaluation]
        points = [(place, score) for place, score in found if score is not None]
        best = max(points, key=lambda point: metric.merit(point[1]), default=None)
        if run.original and metric.name in run.original:
            original, before = run.original[metric.name], -run.epochs_before
            started = run.started[metric.name] if run.started else original
            # A cold start moves no weight, and a head start is scored at its end.
            at_its_end = [(-run.cold_epochs, started)] if run.started else []
            points = [(before, original), *at_its_end, (0, started), *points]
            axes.plot(before, original, "o", color=accent(run), markerfacecolor="white", zorder=3)
        if best:
            axes.plot(*best, "o", color=accent(run), markersize=6, zorder=3)
        _line(axes, run, points)
        lines.append(_ended(run, points))
    name_lines(figure, axes, lines)
    return figure


def loss_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return the runs' training loss by epoch and, thin, the base's own cross entropy where replicas add to it."""
    figure, axes = _over_epochs("training loss", runs)
    for run in runs:
        _line(axes, run, [(run.place(e), e.loss) for e in run.epochs])
        if run.accepts:
            _line(axes, run, [(run.place(e), e.step_cross_entropy[0]) for e in run.epochs], linewidth=0.8)
    name_lines(figure, axes, [_ended(run, [(run.place(e), e.loss) for e in run.epochs]) for run in runs])
    return figure


def learning_rate_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return the runs' learning rates at the end of each epoch."""
    figure, axes = _over_epochs("learning rate", runs)
    for width, run in _widest_first(runs):
        _line(axes, run, [(run.place(e), e.learning_rate) for e in run.epochs], linewidth=width)
    name_lines(figure, axes, [_ended(run, [(run.place(e), e.learning_rate) for e in run.epochs]) for run in runs])
    return figure


def throughput_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return how many samples a second the runs trained on, by epoch."""
    figure, axes = _over_epochs("samples a second", runs)
    for run in runs:
        _line(axes, run, [(run.place(e), e.images_per_second) for e in run.epochs])
    axes.set_ylim(bottom=0)
    name_lines(figure, axes, [_ended(run, [(run.place(e), e.images_per_second) for e in run.epochs]) for run in runs])
    return figure


def moments_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return how far the optimizer's moments settled in the cold start, from its second epoch on.

    A panel for each moment that an optimizer keeps. Dotted: where a cold start was to stop.
    """
    titles = {"first_cosine": "cosine of the first moments", "second_change": "change of the second moments"}
    kept = [key for key in titles if any(y is not None for run in runs for _, y in _moments(run, key))]
    figure = Figure(figsize=(WIDTH, HEIGHT))
    for axes, key in zip(figure.subplots(1, len(kept), squeeze=False).flat, kept, strict=True):
        axes.set_title(titles[key], fontsize=8, color=INK, loc="left")
        axes.set_xlabel("cold epoch")
        axes.margins(y=0.15)
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
        for width, run in _widest_first(runs):
            _line(axes, run, _moments(run, key), linewidth=width, marker="o", markersize=2.5 + width)
            if run.tolerance is not None:
                settled = 1 - run.tolerance if key == "first_cosine" else run.tolerance
                axes.axhline(settled, color=accent(run), linestyle=":", linewidth=1)
    if len(runs) > 1:
        legend(figure, [_ended(run, ()) for run in runs])
    return figure


def _moments(run: RunRecord, key: str) -> list[tuple[float, float | None]]:
    return [(epoch.epoch, getattr(epoch.moments, key)) for epoch in run.cold if epoch.moments]


# One run


def valid_share_figure(run: RunRecord) -> Figure:
    """Return the share of units whose episode had not ended before each step, by epoch: a line a step."""
    figure, axes = _over_epochs("still valid, % of units", [run])
    labels = step_labels(run.played[-1])
    columns = [(run.place(e), [100 * share for share in e.valid_share]) for e in run.played]
    for step, color in enumerate(shades(run, len(labels))):
        points = [(place, shares[step]) for place, shares in columns if step < len(shares)]
        _line(axes, run, points, color=color)
    ends = columns[-1][1][: len(labels)]
    label_ends(axes, [Line(*line) for line in zip(labels, ends, shades(run, len(labels)), strict=True)])
    said = run.accepts if run.played[-1].steps is None else "values of both axes"
    axes.set_title(f"{said} of each step, right", fontsize=8, color=QUIET, loc="right")
    return figure


def accepted_figure(run: RunRecord, epoch: EpochRecord) -> Figure:
    """Return what share of each class's units ended their episode at each step, shortest mean episode first.

    Beyond `SHOWN_CLASSES` classes only those with the shortest and the longest are shown.
    """
    counts = {label: row for label, row in enumerate(epoch.accepted_by_class) if sum(row)}
    rows = _class_rows(run, counts)
    figure = Figure(figsize=(WIDTH, 1.2 + _BAR * len(rows)))
    axes = figure.subplots()
    labels = length_labels(epoch)
    for place, (_, row) in enumerate(rows):
        left = 0.0
        for step, (count, color) in enumerate(zip(row, shades(run, len(labels)), strict=False)):
            share = 100 * count / sum(row)
            named = labels[step] if place == 0 else None
            axes.barh(place, share, left=left, height=0.78, color=color, edgecolor="white", label=named)
            left += share
        if row:
            axes.text(101.5, place, f"{_mean_length(row):.2f}", va="center", fontsize=7, color=QUIET)
    axes.text(1.015, 1, "mean\nlength", va="bottom", fontsize=6.5, color=QUIET, transform=axes.transAxes)
    axes.set_yticks(range(len(rows)), [shortened(name) for name, _ in rows], fontsize=7.5, color=INK)
    axes.get_yticklabels()[0].set_fontweight("bold")
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xlabel="% of the class's units")
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    columns, title = min(len(labels), 6), f"accepted {run.accepts}"
    figure.legend(title=title, alignment="left", loc="outside upper left", ncols=columns, fontsize=7.5)
    return figure


def _class_rows(run: RunRecord, counts: dict[int, list[int]]) -> list[tuple[str, list[int]]]:
    """Return names and counts of the rows, all classes together first. The row of those left out is empty."""
    rows = [(run.class_name(label), row) for label, row in sorted(counts.items(), key=lambda c: _mean_length(c[1]))]
    together = [sum(column) for column in zip(*counts.values(), strict=True)]
    if len(rows) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        rows = [*rows[:half], (f"… {len(rows) - SHOWN_CLASSES} between …", []), *rows[-half:]]
    return [("all classes", together), *rows]


def _mean_length(row: Sequence[int]) -> float:
    return sum(step * count for step, count in enumerate(row, start=1)) / sum(row)


# What they share


def _over_epochs(title: str, runs: Sequence[RunRecord]) -> tuple[Figure, Axes]:
    figure, axes = titled_axes(title)
    axes.set_xlabel("epoch")
    last = max((epoch.epoch for run in runs for epoch in run.trained), default=0)
    places = range(-max(run.epochs_before for run in runs), last + 1)
    few = len(places) <= _TICKS
    axes.xaxis.set_major_locator(FixedLocator(places) if few else MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(_number_at(runs)))
    axes.margins(y=0.1)
    before = max(run.epochs_before for run in runs)
    if before:
        axes.axvspan(0.5 - before, 0.5, color=SHADE, linewidth=0)
        style: dict[str, Any] = {"ha": "right", "va": "top", "color": QUIET, "fontsize": 7}
        kinds = {"head": any(run.head_epochs for run in runs), "cold": any(run.cold_epochs for run in runs)}
        named = " and ".join(kind for kind, there in kinds.items() if there)
        axes.text(0.5, 0.995, f"{named} start ", transform=axes.get_xaxis_transform(), **style)
    return figure, axes


def _number_at(runs: Sequence[RunRecord]) -> Callable[[float, int], str]:
    """Return what names a place on the axis: a number, of a cold start c1 and of a head start h1; of the original 0.

    If starts differ, a place before the training has several names, and none is written.
    """
    starts = {(run.head_epochs, run.cold_epochs) for run in runs}

    def number(place: float, _: int) -> str:
        if place > 0:
            return f"{place:.0f}"
        if len(starts) > 1:
            return ""
        head, cold = next(iter(starts))
        before = place + cold + head  # counts the epochs from the first of all
        if before <= 0:
            return f"{before:.0f}"
        return f"h{before:.0f}" if before <= head else f"c{before - head:.0f}"

    return number


def _line(axes: Axes, run: RunRecord, points: Points, **style: Any) -> None:
    """Draw a line in the run's style unless `style` says otherwise; where it has one point, that."""
    values = [(x, math.nan if y is None else y) for x, y in points]
    if values:
        own = {"linestyle": dash(run), "color": accent(run), "marker": "o" if len(points) == 1 else ""}
        axes.plot(*zip(*values, strict=True), **own | style)


def _widest_first(runs: Sequence[RunRecord]) -> list[tuple[float, RunRecord]]:
    """Return each run with a width of its line, so that those show which lie below others of the same values."""
    return [(min(1.6 + 1.2 * above, 5.0), run) for above, run in zip(reversed(range(len(runs))), runs, strict=True)]


def _ended(run: RunRecord, points: Points) -> Line:
    """Return a run's line with where it ends."""
    there = [y for _, y in points if y is not None and math.isfinite(y)]
    return Line(run.name, there[-1] if there else 0.0, accent(run), dash(run))
