"""A comparison as figures: the document of `compare` in, PNG out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from spgsurgeon.comparing import metric_of
from spgsurgeon.reporting.figures import ACCENTS, DASHES, HEIGHT, INK, QUIET, WIDTH, draw

TITLES = {"scores": "Scores", "learning-rates": "Learning rates", "valid-share": "Still valid"}
CAPTIONS = {
    "scores": "A dot is a seed, and a line joins what one seed scored with each arm; a bar is the mean of an arm.",
    "learning-rates": "The mean over seeds on what learning rates were chosen on. A ring is the choice; a gap is where "
    "a run broke off.",
    "valid-share": "Share of units whose prediction was right at every step before, in the last epoch of chosen runs.",
}
"""What is said below each figure."""


def comparison_figures(document: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the figures that there are numbers for, as PNG files by name."""
    figures = {
        "scores": draw(scores_figure, document),
        "learning-rates": draw(learning_rates_figure, document),
    }
    if any(arm["valid_share"] for arm in document["arms"].values()):
        figures["valid-share"] = draw(valid_share_figure, document)
    return figures


def scores_figure(document: Mapping[str, Any]) -> Figure:
    """Return the chosen runs' scores: a dot a seed, those of a seed joined; a bar is the mean of an arm."""
    figure, axes = _axes(f"{metric_of(document).title} on {document['scored_on']}")
    arms = document["arms"]
    for seed in range(len(document["seeds"])):
        axes.plot(
            range(len(arms)), [arm["scores"][seed] for arm in arms.values()], color=QUIET, linewidth=0.7, zorder=1
        )
    for place, arm in enumerate(arms.values()):
        color = arm_color(place)
        axes.plot([place] * len(arm["scores"]), arm["scores"], "o", color=color, zorder=2)
        axes.hlines(arm["mean"], place - 0.18, place + 0.18, color=color, linewidth=2, zorder=2)
    axes.set_xticks(range(len(arms)), list(arms), color=INK, rotation=0 if len(arms) < 6 else 30)
    axes.set_xlim(-0.5, len(arms) - 0.5)
    return figure


def learning_rates_figure(document: Mapping[str, Any]) -> Figure:
    """Return each arm's mean score at each learning rate, on what learning rates are chosen on; a ring is the choice.

    Where a run broke off there is a gap.
    """
    figure, axes = _axes(f"{metric_of(document).title} on {document['chosen_on']}")
    rates: list[float] = []
    for place, (name, arm) in enumerate(document["arms"].items()):
        points = [(p["learning_rate"], p["validation"]) for p in arm["learning_rates"]]
        rates = [rate for rate, _ in points]
        values = [float("nan") if value is None else value for _, value in points]
        axes.plot(rates, values, marker="o", label=name, **_style(place))
        chosen = (arm["learning_rate"], arm["validation"])
        axes.plot(*chosen, "o", color=arm_color(place), markerfacecolor="white", markersize=8, zorder=3)
    axes.set_xscale("log")
    axes.set_xticks(rates, [f"{rate:.3g}" for rate in rates])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("learning rate")
    _legend(figure, len(document["arms"]))
    return figure


def valid_share_figure(document: Mapping[str, Any]) -> Figure:
    """Return the share of units whose episode had not ended before each step, in the last epoch of the chosen runs."""
    figure, axes = _axes("still valid, % of units, last epoch")
    drawn = 0
    for place, (name, arm) in enumerate(document["arms"].items()):
        if shares := arm["valid_share"]:
            drawn += 1
            axes.plot(range(len(shares)), [100 * share for share in shares], marker="o", label=name, **_style(place))
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))
    _legend(figure, drawn)
    return figure


def _axes(title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = figure.subplots()
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    axes.margins(y=0.12)
    return figure, axes


def arm_color(place: int) -> str:
    """Return the colour of the arm at this place of a comparison."""
    return ACCENTS[place % len(ACCENTS)]


def _style(place: int) -> dict[str, Any]:
    return {"color": arm_color(place), "linestyle": DASHES[place // len(ACCENTS) % len(DASHES)]}


def _legend(figure: Figure, names: int) -> None:
    figure.set_figheight(HEIGHT + 0.17 * -(-names // 3))
    figure.legend(loc="outside upper left", ncols=min(names, 3), fontsize=7.5)
