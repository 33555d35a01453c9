"""A comparison in words and in figures."""

from __future__ import annotations

import io
from typing import Any

import pytest
from PIL import Image

from spgsurgeon.comparing.table import HEAD, cost_rows, markdown, remarks, rows
from spgsurgeon.reporting.alt_texts import of_comparison
from spgsurgeon.reporting.comparison_plots import comparison_figures, differences_figure, scores_figure
from spgsurgeon.reporting.style import color_of

DIFFERENCE = {"mean": 1.5, "low": 0.5, "high": 2.5, "bootstrap_low": 0.8, "bootstrap_high": 2.1, "detectable": 1.25}


def arm(rate: float, scores: list[float], **more: Any) -> dict[str, Any]:
    grid = [{"learning_rate": 0.02, "validation": 70.0}, {"learning_rate": 0.2, "validation": None}]
    return {
        "multiple": 1 if rate == 0.02 else 10,
        "learning_rate": rate,
        "validation": 70.0,
        "scores": scores,
        "mean": sum(scores) / 2,
        "difference": None,
        "verdict": None,
        "at_edge": False,
        "epochs": 6,
        "broken_off": 0,
        "learning_rates": grid,
        "valid_share": None,
        "share_of_plains_time": None,
    } | more


@pytest.fixture
def document() -> dict[str, Any]:
    shown = {"difference": DIFFERENCE | {"agree": 2}, "verdict": "gain", "at_edge": True, "broken_off": 1, "epochs": 5}
    return {
        "arms": {"plain": arm(0.02, [90.0, 91.0]), "my|arm": arm(0.02, [91.5, 92.5], **shown)},
        "original": 60.0,
        "seeds": [0, 1],
        "metric": "top1",
        "chosen_on": "train, held out",
        "scored_on": "test",
        "samples": 697,
        "budget": "epochs",
        "grid": [1, 10],
        "multiples": [1, 10],
    }


COSTS = {"arms": {"plain": {"runs": 6, "steps": 1200, "steps_of_choosing": 800, "seconds": 12.4}}}


def test_rows_say_what_was_found(document: dict[str, Any]) -> None:
    plain, mine = rows(document)
    assert len(plain) == len(mine) == len(HEAD)
    assert plain[4:] == ("", "", "", "", "")
    assert mine[3:] == ("92.00", "+1.50", "+0.50 to +2.50", "+0.80 to +2.10", "2 of 2", "gain")
    assert cost_rows(COSTS) == [("plain", "6", "1,200", "800", "12 s")]


def test_remarks_say_what_limits_it(document: dict[str, Any]) -> None:
    said = dict(remarks(document))
    assert said["score"] == "top-1 %, mean of 2 seeds, on 697 samples of test"
    assert said["could show"] == "my|arm: 1.25 points or more, four times in five"
    assert "worse" not in said
    assert "my|arm (0.02); resume with --resume and --learning-rates 0.1,0.33,1,10, or auto" in said["grid"]
    assert "my|arm 1" in said["broken off"]
    for each in document["arms"].values():
        each.update(at_edge=False, broken_off=0)
    assert not dict(remarks(document)).keys() & {"grid", "epochs", "broken off"}


def test_a_base_that_knows_the_pictures_is_remarked_on(document: dict[str, Any]) -> None:
    assert "base" not in dict(remarks(document)), "an earlier version did not look"
    for unknown in (None, {"chosen_on": 0, "scored_on": 0}):
        assert "base" not in dict(remarks(document | {"base_seen": unknown}))
    said = [
        text for name, text in remarks(document | {"base_seen": {"chosen_on": 12, "scored_on": 7}}) if name == "base"
    ]
    assert [text[:24] for text in said] == ["itself trained on 12 of ", "itself trained on 7 of t"]
    assert "the same data.holdout" in said[0]


def test_several_arms_have_several_chances_to_be_wrong(document: dict[str, Any]) -> None:
    assert "arms" not in dict(remarks(document))
    document["arms"] |= dict.fromkeys(("a", "b", "c"), document["arms"]["my|arm"])
    assert "of 4 like plain one would seem not to be in up to 20 % of comparisons" in dict(remarks(document))["arms"]


def test_an_edge_is_continued_on_its_own_side_and_not_after_auto(document: dict[str, Any]) -> None:
    document["arms"]["my|arm"]["multiple"] = 10
    assert "--learning-rates 1,10,30,100, or auto" in dict(remarks(document))["grid"]
    document["grid"] = "auto"
    assert dict(remarks(document))["grid"].endswith("auto looked no further: give another training.optimizer.lr")


def test_equal_seconds_are_said_with_what_whole_epochs_make_of_them(document: dict[str, Any]) -> None:
    document["budget"] = "seconds"
    document["arms"]["plain"]["share_of_plains_time"] = 1.0
    document["arms"]["my|arm"].update(epochs=1, share_of_plains_time=1.6)
    said = dict(remarks(document))["epochs"]
    assert said == "as many as take plain's time, by steps measured here: plain 6, my|arm 1 (1.60 times its time)"


def test_markdown_has_cells_for_every_row(document: dict[str, Any]) -> None:
    lines = [line for line in markdown(document, COSTS).splitlines() if line.startswith("|")]
    assert [line.count("|") for line in lines] == [len(HEAD) + 1] * 4 + [6] * 3


def test_figures_are_pictures_and_the_same_each_time(document: dict[str, Any]) -> None:
    document["arms"]["my|arm"]["valid_share"] = [1.0, 0.9, 0.7]
    figures = comparison_figures(document)
    assert set(figures) == {"differences", "scores", "learning-rates", "valid-share"}
    for png in figures.values():
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.width > 900
    document["arms"]["my|arm"]["valid_share"] = None
    again = comparison_figures(document)
    assert again == {name: figures[name] for name in ("differences", "scores", "learning-rates")}


def test_remarks_say_what_could_not_be_shown_and_that_nothing_helps(document: dict[str, Any]) -> None:
    document["original"] = 95.0
    document["arms"]["my|arm"]["difference"] = DIFFERENCE | {"agree": 2, "detectable": 9.6}
    said = dict(remarks(document))
    assert said["could show"] == "my|arm: none: it would take 9.60 points, and there is room for 9.50"
    assert said["worse"].startswith("every arm ends worse than the original")
    document["arms"]["my|arm"]["difference"] = DIFFERENCE | {"agree": 2, "detectable": 0.0}
    assert "unknown" in dict(remarks(document))["could show"]
    document["seeds"] = [0]
    assert "one seed" in dict(remarks(document))["verdict"]


HUES = {"plain": 0, "my|arm": 4}


def test_differences_have_their_intervals_and_the_original_has_a_line(document: dict[str, Any]) -> None:
    (axes,) = differences_figure(document | {"original": 89.5}, HUES).axes
    ((first, last),) = (collection.get_segments()[0] for collection in axes.collections)
    assert (first[0], last[0]) == (0.5, 2.5)
    lines = {tuple(map(float, line.get_xdata())): line.get_color() for line in axes.lines}
    assert lines[1.5,] == color_of(4), "the mean, in the arm's colour"
    assert (0, 0) in lines
    assert (-1, -1) in lines
    assert axes.get_xlabel() == "original, -1.00"
    assert "better is to the right" in axes.get_title(loc="left")


def test_an_original_far_away_is_told_and_does_not_squeeze_the_intervals(document: dict[str, Any]) -> None:
    (axes,) = differences_figure(document | {"original": 10.0}, HUES).axes
    assert axes.get_xlabel() == "original, -80.50: not drawn, too far to the left"
    assert axes.get_xlim()[0] > -1
    (axes,) = scores_figure(document | {"original": 10.0}, HUES).axes
    assert axes.get_ylim()[0] > 80
    (axes,) = differences_figure(document | {"untrained": "all"}, HUES).axes
    assert not axes.get_xlabel(), "random weights are no original"


def test_what_a_figure_shows_is_said_in_numbers(document: dict[str, Any]) -> None:
    assert of_comparison("differences", document) == "my|arm: +1.50 points of top-1, +0.50 to +2.50, gain"
    assert "plain: mean 90.50, seeds 90.00, 91.00" in of_comparison("scores", document)
    assert "0.02: 70.00, 0.2: broke off" in of_comparison("learning-rates", document)
