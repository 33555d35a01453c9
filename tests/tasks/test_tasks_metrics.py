"""Scores in either direction: which is better, by how much one could still gain, and how all of it is said."""

import math
from pathlib import Path

import pytest
from made_up_task import SIGNS
from rich.console import Console

from spgsurgeon.cli import evaluate, train
from spgsurgeon.commands import strip
from spgsurgeon.comparing import search as searching
from spgsurgeon.runs.basis import basis_of
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.metrics import Metric
from spgsurgeon.tasks.registry import TASKS

TOP1, SURPRISE = CLASSIFICATION.primary, SIGNS.primary
CORRELATION = Metric("mcc", "Matthews correlation", percent=False)


def test_which_of_two_scores_is_better() -> None:
    assert (TOP1.better(71.0, 70.0), TOP1.better(70.0, 71.0), TOP1.better(70.0, 70.0)) == (True, False, False)
    assert (SURPRISE.better(20.0, 21.0), SURPRISE.better(21.0, 20.0)) == (True, False)
    assert not any(metric.better(*pair) for metric in (TOP1, SURPRISE) for pair in ((math.nan, 1.0), (1.0, math.nan)))


def test_how_much_better_a_score_could_get() -> None:
    assert (TOP1.room(90.0), SURPRISE.room(20.0), CORRELATION.room(0.5)) == (10.0, 20.0, math.inf)


def test_how_a_score_is_said() -> None:
    assert (TOP1.title, SURPRISE.title) == ("top-1 %", "surprise")
    assert (TOP1.written(71.25), SURPRISE.written(20.125, 2), TOP1.number(71.25, 1)) == ("71.250 %", "20.12", "71.2")
    assert (TOP1.difference, SURPRISE.difference) == ("points of top-1", "surprise")


def drawn(rendered: object) -> str:
    console = Console(width=200, color_system=None)
    with console.capture() as captured:
        console.print(rendered)
    return " ".join(captured.get().split())


@pytest.mark.parametrize(
    ("best", "said"),
    [
        (19.5, "better than the original by 0.500 surprise"),
        (20.5, "worse than the original by 0.500 surprise: keep the original"),
        (20.0, "no gain over the original"),
    ],
)
def test_what_train_says_of_a_score_that_is_better_when_lower(
    best: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(TASKS, SIGNS.name, SIGNS)
    original, last = {"surprise": 20.0, "loss": 3.0}, {"surprise": best, "loss": 2.9}
    scores = {"original": original, "head_start": None, "best": last, "last": last, "untrained": None}
    shown = drawn(train._render(scores | {"trp": {"kind": "dropout"}, "run": "r"}))
    assert "surprise loss original 20.000 3.0000" in shown
    assert said in shown
    assert "%" not in shown


def test_what_eval_says_of_a_task_without_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, SIGNS.name, SIGNS)
    scores = {"samples": 9, "surprise": 20.0, "loss": 3.0, "images_per_second": 7.0}
    document = scores | {"task": SIGNS.name, "data": "rows"}
    shown = drawn(evaluate._render(document))
    assert "data rows, 9 rows of numbers surprise 20.000 loss 3.0000" in shown


def test_trials_are_ordered_by_merit_and_strip_says_what_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, SIGNS.name, SIGNS)
    low, high = {"surprise": 19.0, "loss": 2.9}, {"surprise": 20.0, "loss": 3.0}
    assert searching._key(low) > searching._key(high)
    for original, best, said in ((high, low, []), (low, high, ["worse than the original"]), (low, low, ["no gain"])):
        scores = {"original": original, "best": best}
        monkeypatch.setattr(strip, "scores_of", lambda source, task, scores=scores: scores)
        basis = basis_of(original, None, None)
        monkeypatch.setattr(strip, "basis_of_run", lambda source, basis=basis: basis)
        monkeypatch.setattr(strip, "judged", lambda source, task: task)
        assert [note.partition(":")[0] for note in strip._no_gain(Path("run"), SIGNS)] == said
