"""Figures are of the numbers: read back from what was drawn."""

from __future__ import annotations

import io
from collections import Counter

import numpy as np
import pytest
from made_up_task import SIGNS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from pydantic import ValidationError
from recorded import LABELS, line, record

from spgsurgeon.reporting import gallery
from spgsurgeon.reporting.class_scores import accuracy_figure, confusion_rows
from spgsurgeon.reporting.figures import (
    SHOWN_CLASSES,
    accepted_figure,
    learning_rate_figure,
    loss_figure,
    moments_figure,
    score_figure,
    valid_share_figure,
)
from spgsurgeon.reporting.gallery import drawings_of
from spgsurgeon.reporting.style import accent, draw, shades
from spgsurgeon.runs.records import RunRecord
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.registry import TASKS

TOP1 = CLASSIFICATION.primary


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the drawing out, which takes long."""
    monkeypatch.setattr(gallery, "draw", lambda *_: b"")


def lines_of(axes: Axes, run: RunRecord) -> list[list[tuple[float, float]]]:
    """Return the points of the lines in a run's colour."""
    drawn = [each for each in axes.lines if each.get_color() == accent(run)]
    return [[(float(x), float(y)) for x, y in zip(*each.get_data(), strict=True)] for each in drawn]


def rows_of(figure: Figure) -> list[tuple[str, list[float]]]:
    """Return the name of each row of bars, and how wide its parts are."""
    (axes,) = figure.axes
    names = [label.get_text() for label in axes.get_yticklabels()]
    widths: list[list[float]] = [[] for _ in names]
    for bar in axes.patches:
        widths[round(bar.get_y() + bar.get_height() / 2)].append(bar.get_width())
    return list(zip(names, widths, strict=True))


def test_scores_start_at_the_original_and_lie_still_over_a_cold_start() -> None:
    run = record(line(1, cold=True), line(2, cold=True), line(1), line(2), cold_epochs=2)
    (axes,) = score_figure([run], TOP1).axes
    points = [(-2, 79.0), (0, 79.0), (1, 80.0), (2, 81.0)]
    assert sorted(lines_of(axes, run), key=len) == [points[:1], points[-1:], points]
    assert [text.get_text().strip() for text in axes.texts] == ["cold start"]
    (warm,) = score_figure([record(line(1))], TOP1).axes
    assert not warm.texts


@pytest.mark.parametrize(
    ("cold", "names"),
    [
        ((0,), ["0", "1", "2"]),
        ((2,), ["0", "c1", "c2", "1", "2"]),  # before them, of the cold start, of the training
        ((2, 2), ["0", "c1", "c2", "1", "2"]),
        ((2, 0), ["", "", "", "1", "2"]),  # what is one run's cold epoch is another's original
    ],
)
def test_an_epoch_has_its_own_number_on_the_axis(cold: tuple[int, ...], names: list[str]) -> None:
    runs = [
        record(*(line(k + 1, cold=True) for k in range(count)), line(1), line(2), number=number, cold_epochs=count)
        for number, count in enumerate(cold)
    ]
    (axes,) = loss_figure(runs).axes
    shown = axes.xaxis.get_major_formatter().format_ticks([float(place) for place in range(-max(cold), 3)])
    assert shown == names
    assert list(axes.xaxis.get_major_locator()()) == list(range(-max(cold), 3)), "a tick each"


def test_the_best_epoch_is_marked_where_it_is_not_the_last() -> None:
    run = record(line(1), line(2) | {"evaluation": {"top1": 10.0}})
    (axes,) = score_figure([run], TOP1).axes
    assert [(1, 80.0)] in lines_of(axes, run)


def test_a_score_that_is_better_when_lower_has_its_lowest_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, SIGNS.name, SIGNS)
    scores = [{"evaluation": {"surprise": score, "loss": 1.0}} for score in (9.0, 5.0, 7.0)]
    run = record(*(line(epoch) | score for epoch, score in enumerate(scores, start=1)), original={"surprise": 8.0})
    assert run.metric == SIGNS.primary
    (axes,) = score_figure([run], SIGNS.primary).axes
    assert [(2, 5.0)] in lines_of(axes, run)
    assert axes.get_ylabel() + axes.get_title() + axes.get_title(loc="left") == "surprise"


def test_the_loss_has_the_bases_own_cross_entropy_beside_it() -> None:
    run, plain = record(line(1), line(2)), record(line(1), number=1, name="plain", accepts=None)
    (axes,) = loss_figure([run, plain]).axes
    assert lines_of(axes, run)[:2] == [[(1, 1.5), (2, 0.75)], [(1, 1.0), (2, 0.5)]]
    assert [(1, 1.5)] in lines_of(axes, plain)


def test_runs_with_the_same_values_both_show() -> None:
    runs = [record(line(1), line(2)), record(line(1), line(2), number=1)]
    below, above = learning_rate_figure(runs).axes[0].lines[:2]
    assert below.get_linewidth() > above.get_linewidth()


def test_runs_are_told_apart() -> None:
    runs = [record(line(1), line(2), number=number, name=f"run {number}") for number in range(14)]
    figure = loss_figure([*runs])
    styles = {(each.get_color(), each.get_linestyle()) for each in figure.axes[0].lines}
    assert len(styles) == 14
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [run.name for run in runs]


def test_a_line_a_step_with_its_label_at_the_end() -> None:
    run = record(line(1), line(2))
    (axes,) = valid_share_figure(run).axes
    drawn = [each for each in axes.lines if len(each.get_xdata()) > 1]
    heights = [list(each.get_ydata()) for each in drawn]
    assert heights == [[100, 100], [80, pytest.approx(81)], [60, 60]]
    assert [text.get_text() for text in axes.texts] == list(LABELS)
    assert len({each.get_color() for each in drawn}) == 3


def test_labels_of_lines_that_end_together_keep_apart() -> None:
    run = record(line(1), line(2) | {"valid_share": [1.0, 0.9999, 0.9998]})
    (axes,) = valid_share_figure(run).axes
    heights = [text.xy[1] for text in axes.texts]
    low, high = axes.get_ylim()
    assert heights[0] == 100
    assert min(-np.diff(heights)) > 0.07 * (high - low)


@pytest.mark.parametrize("classes", [2, 10, 21, SHOWN_CLASSES])
def test_every_class_is_shown_shortest_episodes_first(classes: int) -> None:
    counts = [[label, 1, classes - label] for label in range(classes)]  # the higher the label, the shorter
    run = record(line(1, accepted_by_class=counts), class_names=[f"class {label}" for label in range(classes)])
    (whole, share), *rows = rows_of(accepted_figure(run, run.epochs[0]))
    assert whole == "all classes"
    total = np.sum(counts, axis=0)
    assert share == pytest.approx(list(100 * total / total.sum()))
    assert [name for name, _ in rows] == [f"class {label}" for label in reversed(range(classes))]
    for (_, widths), row in zip(rows, reversed(counts), strict=True):
        assert widths == pytest.approx([100 * count / sum(row) for count in row])


@pytest.mark.usefixtures("undrawn")
def test_of_a_thousand_classes_the_extremes_are_shown_and_that_is_said() -> None:
    counts = [[label, 0, 1000 - label] for label in range(1000)]
    run = record(line(1, accepted_by_class=counts))
    _, *rows = rows_of(accepted_figure(run, run.epochs[0]))
    half = SHOWN_CLASSES // 2
    names = [name for name, _ in rows]
    assert names[:half] == [str(label) for label in range(999, 999 - half, -1)]
    assert names[-half:] == [str(label) for label in range(half - 1, -1, -1)]
    assert rows[half] == (f"… {1000 - SHOWN_CLASSES} between …", [])
    caption = next(drawing.caption for drawing in drawings_of([run]) if drawing.name == "run-1-accepted")
    assert "Of 1000 classes: the 12 with the shortest and the 12 with the longest mean episode." in caption


@pytest.mark.usefixtures("undrawn")
def test_classes_without_units_are_left_out_and_that_is_said() -> None:
    run = record(line(1, accepted_by_class=[[1, 0, 0], [0, 0, 0], [0, 0, 2]]))
    assert [name for name, _ in rows_of(accepted_figure(run, run.epochs[0]))] == ["all classes", "0", "2"]
    caption = next(drawing.caption for drawing in drawings_of([run]) if drawing.name == "run-1-accepted")
    assert "1 of the 3 classes had no unit in it." in caption
    nothing = record(line(1, accepted_by_class=[[0, 0, 0]]))
    assert "run-1-accepted" not in {drawing.name for drawing in drawings_of([nothing])}


def by_class(*right: int, units: int = 1000) -> dict[str, object]:
    return {"right": list(right), "units": [units] * len(right), "confusions": [[0, 1, 7], [1, 0, 3]]}


def test_the_best_epochs_classes_are_shown_the_lowest_accuracy_first() -> None:
    run = record(
        line(1, evaluation={"top1": 90.0}, by_class=by_class(900, 300, 600)),
        line(2, evaluation={"top1": 80.0}, by_class=by_class(1, 2, 3)),
        class_names=["cat", "dog", "emu"],
    )
    assert run.best_epoch is run.epochs[0]
    assert run.epochs[0].by_class is not None
    shown = rows_of(accuracy_figure(run, run.epochs[0].by_class.accuracies))
    assert shown == [("dog", [30.0]), ("emu", [60.0]), ("cat", [90.0])]
    assert confusion_rows(run) == [("cat", "dog", 7, "0.7 %"), ("dog", "cat", 3, "0.3 %")]


@pytest.mark.usefixtures("undrawn")
def test_of_many_classes_the_lowest_and_the_highest_accuracies_are_shown() -> None:
    run = record(line(1, by_class=by_class(*range(1000))))
    assert run.epochs[0].by_class is not None
    rows = rows_of(accuracy_figure(run, run.epochs[0].by_class.accuracies))
    half = SHOWN_CLASSES // 2
    assert [name for name, _ in rows[:half]] == list(map(str, range(half)))
    assert [name for name, _ in rows[-half:]] == list(map(str, range(1000 - half, 1000)))
    assert rows[half] == (f"… {1000 - SHOWN_CLASSES} between …", [])
    caption = next(drawing.caption for drawing in drawings_of([run]) if drawing.name == "run-1-classes")
    assert "Of 1000 classes: the 12 with the lowest and the 12 with the highest share." in caption


@pytest.mark.parametrize(
    "damage", [{"right": [1001, 0]}, {"right": [1]}, {"confusions": [[0, 1, -1]]}, {"confusions": [[2, 0, 1]]}]
)
def test_counts_of_classes_that_cannot_be_are_damage(damage: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        record(line(1, by_class=by_class(1, 2) | damage))


def test_moments_that_no_optimizer_keeps_have_no_panel() -> None:
    moments = [{"first_cosine": 0.7, "second_change": change} for change in (None, 0.4)]
    first = record(line(1, cold=True), line(2, cold=True, moments=moments[0]), cold_epochs=2)
    both = record(line(1, cold=True), line(2, cold=True, moments=moments[1]), number=1, cold_epochs=2, tolerance=0.1)
    assert [lines_of(axes, first) for axes in moments_figure([first]).axes] == [[[(2, 0.7)]]]
    cosine, change = moments_figure([first, both]).axes
    assert lines_of(cosine, both)[0] == [(2, 0.7)]
    assert lines_of(change, both)[0] == [(2, 0.4)]
    assert {y for _, y in lines_of(cosine, both)[1]} == {0.9}
    assert {y for _, y in lines_of(change, both)[1]} == {0.1}


@pytest.mark.usefixtures("undrawn")
def test_only_what_was_recorded_is_drawn() -> None:
    names = {
        "nothing": [],
        "a score of several tasks": ["score-accuracy"],
        "no epoch": ["score-top1"],
        "plain": ["score-top1", "loss", "learning-rate", "throughput"],
        "segmentation": [
            "score-mean-iou",
            "loss",
            "learning-rate",
            "run-1-valid-share",
            "run-1-accepted",
            "throughput",
        ],
    }
    runs = {
        "nothing": record(original=None),
        "a score of several tasks": record(original={"accuracy": 40.0}),
        "no epoch": record(),
        "plain": record(line(1), accepts=None),
        "segmentation": record(line(1) | {"evaluation": {"mean_iou": 30.0}}, original={"mean_iou": 20.0}),
    }
    assert {case: [drawing.name for drawing in drawings_of([run])] for case, run in runs.items()} == names
    together = Counter(d.name for d in drawings_of([record(line(1)), record(original={"mean_iou": 1.0}, number=1)]))
    assert together["score-top1"] == together["score-mean-iou"] == 1


def test_strange_names_are_drawn_as_they_are() -> None:
    names = ["$x^2", "_hidden", "$\\frac$", "猫", "a" * 80, "", "\n"]
    counts = [[1, 2, 3] for _ in names]
    runs = [
        record(line(1, accepted_by_class=counts), class_names=names, number=number, name=name)
        for number, name in enumerate(names)
    ]
    assert [text.get_text() for text in loss_figure(runs).legends[0].get_texts()][:2] == names[:2]
    for run in runs[:1]:
        assert Image.open(io.BytesIO(draw(accepted_figure, run, run.epochs[0]))).format == "PNG"
    assert Image.open(io.BytesIO(draw(loss_figure, runs))).format == "PNG"


def test_the_same_numbers_give_the_same_bytes_whatever_the_users_style(monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    run = record(line(1), line(2))
    before = draw(loss_figure, [run])
    monkeypatch.setitem(mpl.rcParams, "axes.facecolor", "black")
    assert draw(loss_figure, [run]) == before
    assert mpl.rcParams["axes.facecolor"] == "black", "the user's style is as it was"


def test_shades_go_from_the_runs_colour_to_a_dark_one() -> None:
    colors = shades(record(), 4)
    assert len(set(colors)) == 4
    assert colors[0] == accent(record())
    assert colors == sorted(colors, reverse=True)
    assert shades(record(), 1) == [accent(record())]


def test_a_few_lines_are_named_at_their_ends_each_after_a_dot_of_its_colour() -> None:
    losses = (3, 1)
    runs = [record(line(1), line(2, loss=loss), number=n, name=f"run {n}") for n, loss in enumerate(losses)]
    figure = loss_figure(runs)
    (axes,) = figure.axes
    assert not figure.legends
    heights = {text.get_text(): text.xy[1] for text in axes.texts}
    assert heights == {"run 0": 3, "run 1": 1}
    for run, height in zip(runs, heights.values(), strict=True):
        assert [(1.025, height)] in lines_of(axes, run)
