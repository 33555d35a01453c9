"""Runs as figures: numbers in, matplotlib figures out, without pyplot and whatever the user's own style is.

Training epochs lie at their numbers; those of a cold start, shaded, at 0 and below, and bear their own numbers there.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from spgsurgeon.runs import EpochRecord, RunRecord, step_labels
from spgsurgeon.tasks import Metric

_Dash = Literal["-", "--", "-.", ":"]

# Okabe and Ito's colours, which people with any colour vision tell apart; without yellow and black.
ACCENTS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
DASHES: Sequence[_Dash] = ("-", "--", "-.", ":")  # runs beyond the colours repeat them, dashed
INK, QUIET, _SHADE = "#33373d", "#8a9099", "#f0f1f3"
WIDTH, HEIGHT, _BAR = 4.6, 2.9, 0.19  # inches; small, so that the text stays legible at a phone's width
_DOTS_PER_INCH = 220
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same everywhere
    "font.size": 8.5,
    "text.parse_math": False,  # a class may be called $x$
    "text.color": INK,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e6ea",
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "figure.constrained_layout.use": True,
}

SHOWN_CLASSES = 24
"""More classes than this are shown by their extremes."""
_NAME_LENGTH = 22


def draw(make: Callable[..., Figure], *arguments: object) -> bytes:
    """Return the figure that `make(*arguments)` gives as a PNG; the same arguments give the same bytes."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script; their boxes do no harm
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        file = io.BytesIO()
        make(*arguments).savefig(file, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


def accent(run: RunRecord) -> str:
    """Return the run's colour."""
    return ACCENTS[run.number % len(ACCENTS)]


def shades(run: RunRecord, steps: int) -> list[str]:
    """Return a colour a step, from a tint of the run's to the colour itself."""
    strengths = [0.25 + 0.75 * step / (steps - 1) for step in range(steps)] if steps > 1 else [1.0]
    red, green, blue = to_rgb(accent(run))
    return [to_hex((1 - s * (1 - red), 1 - s * (1 - green), 1 - s * (1 - blue))) for s in strengths]


# All runs over each other


def score_figure(runs: Sequence[RunRecord], metric: Metric) -> Figure:
    """Return the runs' scores by epoch. A ring is the original's, a filled one the best."""
    figure, axes = _over_epochs(metric.title, runs)
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
    _legend(figure, runs)
    return figure


def loss_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return the runs' training loss by epoch and, thin, the base's own cross entropy where replicas add to it."""
    figure, axes = _over_epochs("training loss", runs)
    for run in runs:
        _line(axes, run, [(run.place(e), e.loss) for e in run.epochs])
        if run.accepts:
            _line(axes, run, [(run.place(e), e.step_cross_entropy[0]) for e in run.epochs], linewidth=0.8)
    _legend(figure, runs)
    return figure


def learning_rate_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return the runs' learning rates at the end of each epoch."""
    figure, axes = _over_epochs("learning rate", runs)
    for width, run in _widest_first(runs):
        _line(axes, run, [(run.place(e), e.learning_rate) for e in run.epochs], linewidth=width)
    _legend(figure, runs)
    return figure


def throughput_figure(runs: Sequence[RunRecord]) -> Figure:
    """Return how many images a second the runs trained on, by epoch."""
    figure, axes = _over_epochs("images a second", runs)
    for run in runs:
        _line(axes, run, [(run.place(e), e.images_per_second) for e in run.epochs])
    axes.set_ylim(bottom=0)
    _legend(figure, runs)
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
    _legend(figure, runs)
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
    low, high = axes.get_ylim()
    ends = columns[-1][1][: len(labels)]
    for label, height in zip(labels, _apart(ends, (high - low) * 0.075), strict=True):
        axes.annotate(label, (1.02, height), xycoords=("axes fraction", "data"), va="center", annotation_clip=False)
    axes.set_title(f"{run.accepts} of each step, right", fontsize=8, color=QUIET, loc="right")
    return figure


def accepted_figure(run: RunRecord, epoch: EpochRecord) -> Figure:
    """Return what share of each class's units ended their episode at each step, shortest mean episode first.

    Beyond `SHOWN_CLASSES` classes only those with the shortest and the longest are shown.
    """
    counts = {label: row for label, row in enumerate(epoch.accepted_by_class) if sum(row)}
    rows = _class_rows(run, counts)
    figure = Figure(figsize=(WIDTH, 1.2 + _BAR * len(rows)))
    axes = figure.subplots()
    labels = step_labels(epoch)
    for place, (_, row) in enumerate(rows):
        left = 0.0
        for step, (count, color) in enumerate(zip(row, shades(run, len(labels)), strict=False)):
            share = 100 * count / sum(row)
            axes.barh(place, share, left=left, height=0.78, color=color, label=labels[step] if place == 0 else None)
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


def shortened(name: str) -> str:
    """Return a class's name as far as there is room."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


# What they share


def _over_epochs(title: str, runs: Sequence[RunRecord]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(_number_at(runs)))
    axes.margins(y=0.1)
    before = max(run.epochs_before for run in runs)
    if before:
        axes.axvspan(0.5 - before, 0.5, color=_SHADE, linewidth=0)
        style: dict[str, Any] = {"ha": "right", "va": "top", "color": QUIET, "fontsize": 7}
        kinds = {"head": any(run.head_epochs for run in runs), "cold": any(run.cold_epochs for run in runs)}
        named = " and ".join(kind for kind, there in kinds.items() if there)
        axes.text(0.5, 0.995, f"{named} start ", transform=axes.get_xaxis_transform(), **style)
    return figure, axes


def _number_at(runs: Sequence[RunRecord]) -> Callable[[float, int], str]:
    """Return what names a place on the axis: nothing where one is of several numbers, after starts that differ."""
    starts = {(run.head_epochs, run.cold_epochs) for run in runs}

    def number(place: float, _: int) -> str:
        if place > 0:
            return f"{place:.0f}"
        if len(starts) > 1:
            return ""
        head, cold = next(iter(starts))
        return f"{place + cold:.0f}" if place > -cold or not head else f"{place + cold + head:.0f}"

    return number


def _line(axes: Axes, run: RunRecord, points: Sequence[tuple[float, float | None]], **style: Any) -> None:
    """Draw a line in the run's style unless `style` says otherwise; where it has one point, that."""
    values = [(x, math.nan if y is None else y) for x, y in points]
    if values:
        own = {"linestyle": _dash(run), "color": accent(run), "marker": "o" if len(points) == 1 else ""}
        axes.plot(*zip(*values, strict=True), **own | style)


def _widest_first(runs: Sequence[RunRecord]) -> list[tuple[float, RunRecord]]:
    """Return each run with a width of its line, so that those show which lie below others of the same values."""
    return [(min(1.6 + 1.2 * above, 5.0), run) for above, run in zip(reversed(range(len(runs))), runs, strict=True)]


def _dash(run: RunRecord) -> _Dash:
    return DASHES[run.number // len(ACCENTS) % len(DASHES)]


def _legend(figure: Figure, runs: Sequence[RunRecord]) -> None:
    """Name the runs above the figure, where there are several, and make it higher for them."""
    if len(runs) < 2:
        return
    handles = [Line2D([], [], color=accent(run), linestyle=_dash(run)) for run in runs]
    names = [shortened(run.name) for run in runs]
    columns = min(len(runs), 3, 70 // (max(map(len, names)) + 6))  # some 70 characters go into the width
    figure.set_figheight(HEIGHT + 0.17 * math.ceil(len(runs) / columns))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, fontsize=7.5)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Return the heights, from the highest down, moved apart where they are nearer than `gap`."""
    placed: dict[int, float] = {}
    ceiling = math.inf
    for index in sorted(range(len(heights)), key=lambda index: -heights[index]):
        placed[index] = min(heights[index], ceiling)
        ceiling = placed[index] - gap
    return [placed[index] for index in range(len(heights))]
