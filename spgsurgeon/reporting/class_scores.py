"""How an epoch scored by class: a bar for each class, and what was taken for what."""

from __future__ import annotations

from matplotlib.figure import Figure

from spgsurgeon.reporting.figures import SHOWN_CLASSES
from spgsurgeon.reporting.style import INK, QUIET, WIDTH, accent, shortened
from spgsurgeon.runs import RunRecord

_BAR = 0.19  # inches
_CONFUSIONS = 10


def accuracy_figure(run: RunRecord, accuracies: dict[int, float]) -> Figure:
    """Return the accuracy of classes, percent, as bars, the lowest first.

    Of more than `SHOWN_CLASSES` the lowest and the highest ones.
    """
    rows = _rows(run, accuracies)
    figure = Figure(figsize=(WIDTH, 0.8 + _BAR * len(rows)))
    axes = figure.subplots()
    for place, (_, found) in enumerate(rows):
        if found is not None:
            axes.barh(place, found, height=0.78, color=accent(run))
            axes.text(101.5, place, f"{found:.1f}", va="center", fontsize=7, color=QUIET)
    axes.set_yticks(range(len(rows)), [shortened(name) for name, _ in rows], fontsize=7.5, color=INK)
    axes.set(xlim=(0, 100), ylim=(len(rows) - 0.4, -0.6), xlabel="% of the class's units that are right")
    axes.grid(visible=False)
    axes.spines["left"].set_visible(False)
    return figure


def _rows(run: RunRecord, accuracies: dict[int, float]) -> list[tuple[str, float | None]]:
    """Return names and accuracies of the rows; that of those left out has none."""
    found = sorted(accuracies.items(), key=lambda one: one[1])
    rows: list[tuple[str, float | None]] = [(run.class_name(label), accuracy) for label, accuracy in found]
    if len(rows) <= SHOWN_CLASSES:
        return rows
    half = SHOWN_CLASSES // 2
    return [*rows[:half], (f"… {len(rows) - SHOWN_CLASSES} between …", None), *rows[-half:]]


def confusion_rows(run: RunRecord) -> list[tuple[str, str, int, str]]:
    """Return true class, predicted class, units and their share of the class: the most frequent of the best epoch."""
    epoch = run.best_epoch
    if epoch is None or epoch.by_class is None:
        return []
    found = epoch.by_class
    return [
        (run.class_name(label), run.class_name(other), units, f"{100 * units / found.units[label]:.1f} %")
        for label, other, units in found.confusions[:_CONFUSIONS]
    ]
