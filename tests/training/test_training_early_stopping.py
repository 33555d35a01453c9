"""A run that ends early: after so many epochs without a better score, and the same when it resumes."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import spgsurgeon, succeed
from tiny_runs import SETTINGS, changed, content_hash, tiny_retraining

from spgsurgeon.comparing.lineup.arms import NO_EARLY_STOPPING, line_up
from spgsurgeon.recipe.training_section import EarlyStoppingSection, ScheduleSection
from spgsurgeon.tasks.metrics import LOSS
from spgsurgeon.training.epoch.early_stopping import EarlyStopping
from spgsurgeon.training.loop import Retraining

RECIPE = Path(__file__).parents[2] / "recipes" / "digits-dropout.yaml"


def stopping(patience: int | None = 2, min_delta: float = 0.0, epochs: int = 9) -> object:
    rule = EarlyStoppingSection(patience=patience, min_delta=min_delta)
    return changed(SETTINGS, epochs=epochs, schedule=ScheduleSection(name="constant"), early_stopping=rule)


def score_by(retraining: Retraining, scores: list[float]) -> None:
    """Let the evaluations have these scores, the original's first; of more there is none."""
    evaluate, given = retraining._evaluate, iter(scores)

    def scored(*arguments: object, **options: object) -> object:
        found = evaluate(*arguments, **options)  # type: ignore[arg-type]
        return found._replace(scores=found.scores | {"top1": next(given)})

    retraining._evaluate = scored  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(
    ("scores", "min_delta", "epochs"),
    [
        ([50, 60, 59, 60, 99], 0.0, 3),
        ([50, 60, 61, 61, 61, 99], 0.0, 4),
        ([50, 60, 60.5, 60.9, 99], 1.0, 3),  # small steps add up to none
        ([50, 60, 60.5, 61.1, 60, 60, 99], 1.0, 5),
        ([99, 1, 2, 3, 4, 5, 6, 7, 8, 9], 0.0, 9),  # the original is not an epoch
    ],
)
def test_it_ends_once_the_score_is_not_better_for_too_long(scores: list[float], min_delta: float, epochs: int) -> None:
    with tiny_retraining(stopping(min_delta=min_delta)) as retraining:
        score_by(retraining, scores)
        counters = retraining.run()
    assert counters.done["train"] == epochs
    assert len([text for text in retraining.remarks if f"after epoch {epochs} of 9" in text]) == (epochs < 9)


def test_without_patience_all_epochs_are_done() -> None:
    with tiny_retraining(stopping(patience=None, epochs=3)) as retraining:
        score_by(retraining, [50, 60, 50, 50])
        assert retraining.run().done["train"] == 3


def test_a_loss_is_better_when_it_is_lower() -> None:
    with tiny_retraining(stopping()) as retraining:
        rule = EarlyStopping(EarlyStoppingSection(patience=1), LOSS, retraining.state)
        for loss, waited in ((2.0, 0), (1.0, 0), (1.5, 1)):
            rule.count(loss)
            assert (retraining.counters.waited, rule.due) == (waited, waited == 1)


def test_a_run_that_resumes_waits_on_and_a_stopped_one_stays_so(tmp_path: Path) -> None:
    scores = [50.0, 60, 59, 61, 60, 60, 99]
    with tiny_retraining(stopping(), path=tmp_path / "whole") as retraining:
        score_by(retraining, scores)
        assert retraining.run().done["train"] == 5
        whole = content_hash(retraining.grafted.base.state_dict())
    with tiny_retraining(stopping(epochs=2), path=tmp_path / "run") as retraining:
        score_by(retraining, scores)
        retraining.run()
    with tiny_retraining(stopping(), path=tmp_path / "run") as retraining:
        assert retraining.resume()
        assert (retraining.counters.waited, retraining.counters.to_beat) == (1, 60.0)
        score_by(retraining, scores[3:])
        assert retraining.run().done["train"] == 5
        assert content_hash(retraining.grafted.base.state_dict()) == whole
    for epochs in (9, 20):  # as a run that had 20 from the start would have stopped there, too
        with tiny_retraining(stopping(epochs=epochs), path=tmp_path / "run") as retraining:
            assert retraining.resume()
            assert retraining.run().done["train"] == 5
            assert content_hash(retraining.grafted.base.state_dict()) == whole
            said = next(text for text in retraining.remarks if f"stays stopped after epoch 5 of {epochs}" in text)
            assert "has not got better for 2 epochs (training.early_stopping; another run" in said


def test_a_comparison_stops_no_run_early() -> None:
    lineup = line_up(["spg"], RECIPE, ["training.early_stopping.patience=2", "data.eval=test"])
    assert NO_EARLY_STOPPING in lineup.overrides
    assert lineup.recipe.training.early_stopping.patience is None
    assert NO_EARLY_STOPPING not in line_up(["spg"], RECIPE, ["data.eval=test"]).overrides


@pytest.mark.slow
def test_the_end_is_said_and_reported(tmp_path: Path) -> None:
    settings = ("training.epochs=4", "training.early_stopping={patience: 1, min_delta: 100}", "training.device=cpu")
    settings = (*settings, "training.schedule={name: constant}")
    model = ("timm/test_resnet", "--random-weights", "--recipe", "digits-dropout")
    outcome = succeed("train", *model, *settings, "-o", tmp_path / "run")
    assert "stopped after epoch 2 of 4" in outcome.err
    succeed("report", tmp_path / "run", "-o", tmp_path / "report")
    assert "2 of 4 epochs, stopped early" in (tmp_path / "report" / "index.html").read_text()
    resumed = spgsurgeon("train", "--resume", "-o", tmp_path / "run", "training.epochs=6")
    assert resumed.code == 0
    assert "training.epochs was 4 and is 6 now" in resumed.err
    assert "stays stopped after epoch 2 of 6" in resumed.err
