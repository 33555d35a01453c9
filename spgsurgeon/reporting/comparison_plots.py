"""A comparison as figures: the document of `compare` in, PNG out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from spgsurgeon.comparing import PLAIN, metric_of
from spgsurgeon.reporting.style import INK, QUIET, WIDTH, Line, color_of, dash_of, draw, name_lines, titled_axes

TITLES = {
    "differences": "Differences to plain",
    "scores": "Scores",
    "learning-rates": "Learning rates",
    "valid-share": "Still valid",
}
CAPTIONS = {
    "differences": "A dot is the mean difference of an arm's scores to those of plain retraining, and a line its 95 % "
    "interval: one that reaches the line at 0 shows no difference. Dotted: the original, before any training.",
    "scores": "A dot is a seed, and a line joins what one seed scored with each arm; a bar is the mean of an arm. "
    "Dotted: the original.",
    "learning-rates": "The mean over seeds on what learning rates were chosen on. A ring is the choice; a gap is where "
    "a run broke off.",
    "valid-share": "Share of units whose prediction was right at every step before, in the last epoch of chosen runs.",
}
"""What is said below each figure."""
_ROW = 0.34  # inches
_FAR = 2.0  # an original farther away than so many widths of the intervals would squeeze them


def comparison_figures(document: Mapping[str, Any], hues: Mapping[str, int] | None = None) -> dict[str, bytes]:
    """Return the figures that there are numbers for, as PNG files by name; `hues` are the arms' colours."""
    hues = dict(zip(document["arms"], range(len(document["arms"])), strict=True)) | dict(hues or {})
    arms = document["arms"].values()
    figures = {}
    if any(arm["difference"] for arm in arms):
        figures["differences"] = draw(differences_figure, document, hues)
    figures["scores"] = draw(scores_figure, document, hues)
    figures["learning-rates"] = draw(learning_rates_figure, document, hues)
    if any(arm["valid_share"] for arm in arms):
        figures["valid-share"] = draw(valid_share_figure, document, hues)
    return figures


def differences_figure(document: Mapping[str, Any], hues: Mapping[str, int]) -> Figure:
    """Return each arm's mean difference to plain with its interval, a row an arm, and where the original is."""
    metric = metric_of(document)
    better = "right" if metric.higher_is_better else "left"
    figure, axes = titled_axes(f"difference to {PLAIN}, {metric.difference}; better is to the {better}")
    found = {name: arm["difference"] for name, arm in document["arms"].items() if arm["difference"]}
    figure.set_size_inches(WIDTH, 1.1 + _ROW * len(found))
    for row, (name, difference) in enumerate(found.items()):
        color = color_of(hues[name])
        axes.hlines(row, difference["low"], difference["high"], color=color, linewidth=2)
        axes.plot(difference["mean"], row, "o", color=color, markersize=6)
    axes.axvline(0, color=INK, linewidth=0.9)
    axes.set_yticks(range(len(found)), list(found), color=INK)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.1)
    _original_across(axes, document)
    return figure


def _original_across(axes: Axes, document: Mapping[str, Any]) -> None:
    """Draw the original's line in a figure of differences; if it is too far away, say where it is."""
    if document.get("untrained"):
        return
    place = document["original"] - document["arms"][PLAIN]["mean"]
    low, high = axes.get_xlim()
    if low - _FAR * (high - low) < place < high + _FAR * (high - low):
        axes.axvline(place, color=QUIET, linestyle=":", linewidth=1.4)
        said = f"original, {place:+.2f}"
    else:
        said = f"original, {place:+.2f}: not drawn, too far to the {'left' if place < low else 'right'}"
    axes.set_xlabel(said)


def scores_figure(document: Mapping[str, Any], hues: Mapping[str, int]) -> Figure:
    """Return the chosen runs' scores: a dot a seed, those of a seed joined; a bar is the mean of an arm."""
    figure, axes = _axes(f"{metric_of(document).title} on {document['scored_on']}")
    arms = document["arms"]
    for seed in range(len(document["seeds"])):
        axes.plot(
            range(len(arms)), [arm["scores"][seed] for arm in arms.values()], color=QUIET, linewidth=0.7, zorder=1
        )
    for place, (name, arm) in enumerate(arms.items()):
        color = color_of(hues[name])
        axes.plot([place] * len(arm["scores"]), arm["scores"], "o", color=color, zorder=2)
        axes.hlines(arm["mean"], place - 0.18, place + 0.18, color=color, linewidth=2, zorder=2)
    axes.set_xticks(range(len(arms)), list(arms), color=INK, rotation=0 if len(arms) < 6 else 30)
    axes.set_xlim(-0.5, len(arms) - 0.5)
    low, high = axes.get_ylim()
    original = document["original"]
    if not document.get("untrained") and low - (high - low) < original < high + (high - low):
        axes.axhline(original, color=QUIET, linestyle=":", linewidth=1.4, zorder=0)
    return figure


def learning_rates_figure(document: Mapping[str, Any], hues: Mapping[str, int]) -> Figure:
    """Return each arm's mean score at each learning rate, on what learning rates are chosen on; a ring is the choice.

    Where a run broke off there is a gap.
    """
    figure, axes = _axes(f"{metric_of(document).title} on {document['chosen_on']}")
    rates: list[float] = []
    lines = []
    for name, arm in document["arms"].items():
        points = [(p["learning_rate"], p["validation"]) for p in arm["learning_rates"]]
        rates = [rate for rate, _ in points]
        values = [math.nan if value is None else value for _, value in points]
        color, dash = color_of(hues[name]), dash_of(hues[name])
        axes.plot(rates, values, marker="o", color=color, linestyle=dash)
        chosen = (arm["learning_rate"], arm["validation"])
        axes.plot(*chosen, "o", color=color, markerfacecolor="white", markersize=8, zorder=3)
        end = next((value for _, value in reversed(points) if value is not None), arm["validation"])
        lines.append(Line(name, end, color, dash))
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate")
    name_lines(figure, axes, lines)
    return figure


def valid_share_figure(document: Mapping[str, Any], hues: Mapping[str, int]) -> Figure:
    """Return the share of units whose episode had not ended before each step, in the last epoch of the chosen runs."""
    figure, axes = _axes("still valid, % of units, last epoch")
    lines = []
    for name, arm in document["arms"].items():
        if shares := arm["valid_share"]:
            line = Line(name, 100 * shares[-1], color_of(hues[name]), dash_of(hues[name]))
            values = [100 * share for share in shares]
            axes.plot(range(len(shares)), values, marker="o", color=line.color, linestyle=line.dash)
            lines.append(line)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    name_lines(figure, axes, lines)
    return figure


def _axes(title: str) -> tuple[Figure, Axes]:
    figure, axes = titled_axes(title)
    axes.margins(y=0.12)
    return figure, axes
