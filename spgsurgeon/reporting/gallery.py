"""Which figures a report has, and what is said below each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from matplotlib.figure import Figure

from spgsurgeon.comparing import ComparisonRecord
from spgsurgeon.reporting import alt_texts
from spgsurgeon.reporting.class_scores import accuracy_figure
from spgsurgeon.reporting.comparison_plots import CAPTIONS, TITLES, comparison_figures
from spgsurgeon.reporting.figures import (
    SHOWN_CLASSES,
    accepted_figure,
    learning_rate_figure,
    loss_figure,
    moments_figure,
    score_figure,
    throughput_figure,
    valid_share_figure,
)
from spgsurgeon.reporting.style import draw
from spgsurgeon.runs import EpochRecord, RunRecord, in_words
from spgsurgeon.tasks import TASKS

Section = Literal["comparison", "curves", "classes", "episodes", "speed", "cold"]


@dataclass(frozen=True)
class Drawing:
    """A figure of a report: `name` is its file's, without the ending; `about` is its run or comparison, or None.

    `numbers` says what the figure shows, for those who can't see it.
    """

    section: Section
    name: str
    title: str
    caption: str
    numbers: str
    png: bytes
    about: RunRecord | ComparisonRecord | None = None


def drawings_of(runs: Sequence[RunRecord], comparisons: Sequence[ComparisonRecord] = ()) -> list[Drawing]:
    """Return the figures that these runs and comparisons have the numbers for, in the order of the page."""
    drawings = _of_all(runs)
    for comparison in comparisons:
        drawings += _of_comparison(comparison)
    for run in runs:
        drawings += _of_one(run)
    return sorted(drawings, key=lambda drawing: get_args(Section).index(drawing.section))


def _of_all(runs: Sequence[RunRecord]) -> list[Drawing]:
    found = []

    def add(
        section: Section, name: str, words: tuple[str, str, str], make: Callable[..., Figure], *given: object
    ) -> None:
        found.append(Drawing(section, name, *words, draw(make, *given)))

    for metric in dict.fromkeys(task.primary for task in TASKS.values()):  # tasks may share one
        if scored := [run for run in runs if run.metric == metric]:
            said = (
                "On the evaluation split, at the end of each epoch. A ring is the original, before any step, a dot the "
                "best epoch."
            )
            name = f"score-{metric.name.replace('_', '-')}"
            numbers = alt_texts.of_scores(scored, metric)
            add("curves", name, (f"Score, {metric.label}", said, numbers), score_figure, scored, metric)
    started = [run for run in runs if run.epochs]
    if started:
        numbers = alt_texts.of_course(started, "loss")
        add("curves", "loss", ("Training loss", _about_losses(started), numbers), loss_figure, started)
        words = ("Learning rate", "Of the last step of each epoch.", alt_texts.of_course(started, "learning_rate"))
        add("curves", "learning-rate", words, learning_rate_figure, started)
        said = "Samples that the training took in a second, waiting for data included."
        words = ("Throughput", said, alt_texts.of_course(started, "images_per_second", " a second"))
        add("speed", "throughput", words, throughput_figure, started)
    if converged := [run for run in started if any(_compared(epoch) for epoch in run.cold)]:
        said = (
            "How far the optimizer's moments still changed from one cold epoch to the next: a cosine near 1 and a "
            "relative change near 0 mean that they have settled."
        )
        if any(run.tolerance is not None for run in converged):
            said += " Dotted: where the cold start was to stop."
        add("cold", "cold-start", ("Cold start", said, alt_texts.of_moments(converged)), moments_figure, converged)
    return found


def _compared(epoch: EpochRecord) -> bool:
    return epoch.moments is not None and any(value is not None for value in dict(epoch.moments).values())


def _about_losses(runs: Sequence[RunRecord]) -> str:
    said = "Mean of each epoch."
    if any(run.accepts for run in runs):
        said += " Thin: the cross entropy of the base alone, without the replicas."
    if len(runs) > 1:
        said += " Losses of different objectives don't compare; the cross entropies do."
    return said


def _of_comparison(comparison: ComparisonRecord) -> list[Drawing]:
    if comparison.document is None:
        return []
    document, number = comparison.document, comparison.number + 1
    return [
        Drawing(
            "comparison",
            f"comparison-{number}-{name}",
            TITLES[name],
            CAPTIONS[name],
            alt_texts.of_comparison(name, document),
            png,
            comparison,
        )
        for name, png in comparison_figures(document, comparison.hues).items()
    ]


def _of_one(run: RunRecord) -> list[Drawing]:
    return [*_of_classes(run), *_of_episodes(run)]


def _of_classes(run: RunRecord) -> list[Drawing]:
    epoch = run.best_epoch
    if epoch is None or epoch.by_class is None or not (accuracies := epoch.by_class.accuracies):
        return []
    said = f"How much of each class's units is right in {in_words([epoch])}, the best one, on the evaluation split."
    if len(accuracies) > SHOWN_CLASSES:
        half = SHOWN_CLASSES // 2
        said += f" Of {len(accuracies)} classes: the {half} with the lowest and the {half} with the highest share."
    png = draw(accuracy_figure, run, accuracies)
    words = ("Accuracy, by class", said, alt_texts.of_accuracies(run, accuracies))
    return [Drawing("classes", f"run-{run.number + 1}-classes", *words, png, run)]


def _of_episodes(run: RunRecord) -> list[Drawing]:
    if not run.accepts or not run.played:
        return []
    said = "Share of units whose prediction was right at every step before; the later the step, the darker the line."
    png = draw(valid_share_figure, run)
    words = ("Still valid", said, f"last epoch, {run.accepts} {alt_texts.of_validity(run.played[-1])}")
    drawings = [Drawing("episodes", f"run-{run.number + 1}-valid-share", *words, png, run)]
    recorded = [epoch for epoch in run.played if any(map(sum, epoch.accepted_by_class))]
    if recorded:
        last = recorded[-1]
        rows = last.accepted_by_class
        seen = sum(1 for row in rows if sum(row))
        said = f"Where the units of each class ended their episode in {in_words([last])}."
        if seen > SHOWN_CLASSES:
            half = SHOWN_CLASSES // 2
            said += f" Of {seen} classes: the {half} with the shortest and the {half} with the longest mean episode."
        if seen < len(rows):
            said += f" {len(rows) - seen} of the {len(rows)} classes had no unit in it."
        png = draw(accepted_figure, run, last)
        words = ("Accepted, by class", said, alt_texts.of_accepted(run, last))
        drawings.append(Drawing("episodes", f"run-{run.number + 1}-accepted", *words, png, run))
    return drawings
