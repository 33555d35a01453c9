"""How figures look: colours, dashes, fonts and labels, whatever the user's own style is.

Text has a contrast of at least 4.5 to its ground and lines one of at least 3, as WCAG's level AA asks.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spgsurgeon.runs import RunRecord

Dash = Literal["-", "--", "-.", ":"]

# Of Okabe and Ito's colours, which people with any colour vision tell apart, three; their light ones are made darker.
ACCENTS = ("#0072b2", "#d55e00", "#009060", "#bf6090", "#6600cc", "#a60000")
DASHES: Sequence[Dash] = ("-", "--", "-.", ":")
INK, QUIET, SHADE = "#24282e", "#5c636d", "#f0f1f3"
WIDTH, HEIGHT = 4.6, 2.9  # inches; small, so that the text stays legible at a phone's width
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
    "xtick.major.size": 2.5,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.markersize": 4,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "figure.constrained_layout.use": True,
}
_NAME_LENGTH = 22
_LABELLED_LINES = 6  # more than these have a legend


class Line(NamedTuple):
    """A line as its label needs it: its name, where it ends, and how it is drawn."""

    name: str
    end: float
    color: str
    dash: Dash = "-"


def draw(make: Callable[..., Figure], *arguments: object) -> bytes:
    """Return the figure that `make(*arguments)` gives as a PNG; the same arguments give the same bytes."""
    with mpl.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names may be in any script; their boxes do no harm
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        file = io.BytesIO()
        make(*arguments).savefig(file, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return file.getvalue()


def titled_axes(title: str) -> tuple[Figure, Axes]:
    """Return a figure of the usual size and its axes."""
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    return figure, axes


def color_of(hue: int) -> str:
    """Return a colour by its number; they begin again after the last."""
    return ACCENTS[hue % len(ACCENTS)]


def dash_of(hue: int, twin: int = 0) -> Dash:
    """Return the dash of the line number `twin` with this hue."""
    return DASHES[(hue // len(ACCENTS) + twin) % len(DASHES)]


def accent(run: RunRecord) -> str:
    """Return the run's colour, which is its arm's."""
    return color_of(run.hue)


def dash(run: RunRecord) -> Dash:
    """Return the run's dash, which tells runs of one colour apart."""
    return dash_of(run.hue, run.twin)


def shades(run: RunRecord, steps: int) -> list[str]:
    """Return a colour a step, from the run's to a dark one of the same hue."""
    strengths = [1 - 0.6 * step / (steps - 1) for step in range(steps)] if steps > 1 else [1.0]
    red, green, blue = to_rgb(accent(run))
    return [to_hex((s * red, s * green, s * blue)) for s in strengths]


def shortened(name: str) -> str:
    """Return a class's name as far as there is room."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def name_lines(figure: Figure, axes: Axes, lines: Sequence[Line]) -> None:
    """Name the lines at their ends, if there are several; beyond six in a legend above the figure."""
    if len(lines) > _LABELLED_LINES:
        legend(figure, lines)
    elif len(lines) > 1:
        label_ends(axes, lines)


def label_ends(axes: Axes, lines: Sequence[Line]) -> None:
    """Write each name where its line ends, right of the axes, after a dot of its colour."""
    low, high = axes.get_ylim()
    heights = _apart([line.end for line in lines], (high - low) * 0.075, low)
    style: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "va": "center", "annotation_clip": False}
    for line, height in zip(lines, heights, strict=True):
        axes.annotate(shortened(line.name), (1.05, height), fontsize=7.5, color=INK, **style)
        axes.plot(1.025, height, "o", color=line.color, transform=axes.get_yaxis_transform(), clip_on=False)
    axes.set_ylim(low, high)


def legend(figure: Figure, lines: Sequence[Line]) -> None:
    """Name the lines above the figure, and make it higher for them."""
    handles = [Line2D([], [], color=line.color, linestyle=line.dash) for line in lines]
    names = [shortened(line.name) for line in lines]
    columns = min(len(lines), 3, 70 // (max(map(len, names)) + 6))  # some 70 characters go into the width
    figure.set_figheight(HEIGHT + 0.17 * math.ceil(len(lines) / columns))
    figure.legend(handles, names, loc="outside upper left", ncols=columns, fontsize=7.5)


def _apart(heights: Sequence[float], gap: float, floor: float) -> list[float]:
    """Return the heights moved apart if they are nearer than `gap`: downwards, and up again from the floor."""
    order = sorted(range(len(heights)), key=lambda index: -heights[index])
    placed = list(heights)
    for above, below in pairwise(order):
        placed[below] = min(placed[below], placed[above] - gap)
    if placed[order[-1]] < floor:
        placed[order[-1]] = min(floor, heights[order[-1]])
        for below, above in pairwise(reversed(order)):
            placed[above] = max(placed[above], placed[below] + gap)
    return placed
