"""`compare`: what it chooses, when its grid grows, and what it says of the chosen, on made-up scores."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from made_up_comparisons import RECIPE, made_up
from made_up_task import SIGNS
from pydantic import ValidationError

from spgsurgeon.comparing.reading import how_far, read_comparison
from spgsurgeon.comparing.records import ComparisonDocument
from spgsurgeon.comparing.runs import Result, Run, add_result, read_results
from spgsurgeon.comparing.table import remarks
from spgsurgeon.errors import SurgeonError
from spgsurgeon.tasks.registry import TASKS


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


def test_a_learning_rate_is_chosen_by_the_mean_over_seeds_and_not_by_the_scores(recipe: Path, tmp_path: Path) -> None:
    table = {1.0: (50, 90), 3.0: (71, 71), 10.0: (60, 60)}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: table[m][seed], grid=[1.0, 3.0, 10.0])
    arm = document["arms"]["spg"]
    assert (arm["learning_rate"], arm["validation"], arm["at_edge"]) == (0.06, 71, False)
    assert arm["scores"] == [30, 31]


def test_a_learning_rate_is_chosen_in_the_direction_of_the_score(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a made-up task whose score is better when lower; seed by seed spg scores what plain does, times three."""
    monkeypatch.setitem(TASKS, SIGNS.name, SIGNS)
    table = {0.3: (60, 60), 1.0: (10, 50), 3.0: (71, 71)}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: table[m][seed], grid=[0.3, 1.0, 3.0], task=SIGNS)
    assert (document["metric"], document["arms"]["spg"]["validation"]) == ("surprise", 30)
    assert {arm["multiple"] for arm in document["arms"].values()} == {1.0}
    best = {"plain": 1.0, "spg": 3.0}
    document = made_up(recipe, tmp_path / "d", lambda arm, m, seed: abs(m / best[arm] - 1), task=SIGNS)
    assert {name: arm["multiple"] for name, arm in document["arms"].items()} == best
    arm, said = document["arms"]["spg"], dict(remarks(document))
    assert (arm["difference"]["mean"], arm["verdict"]) == (20.0, "loss")
    assert said["score"].startswith("surprise, mean of 2 seeds")
    assert "%" not in said["original"]
    assert "worse" in said, "the original has 0"
    document["original"] = 1000.0
    assert "worse" not in dict(remarks(document))
    assert ComparisonDocument.model_validate(document).metric == "surprise"
    with pytest.raises(ValidationError, match="no task is scored by 'perplexty'"):
        ComparisonDocument.model_validate(document | {"metric": "perplexty"})


def test_auto_grows_the_grid_of_all_arms_until_the_best_has_neighbours(recipe: Path, tmp_path: Path) -> None:
    best = {"plain": 27.0, "spg": 0.3}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: -abs(m / best[arm] - 1))
    for name, arm in document["arms"].items():
        multiples = [round(point["learning_rate"] / 0.02, 3) for point in arm["learning_rates"]]
        assert multiples == [0.1, 0.3, 1, 3, 9, 27, 81]
        assert arm["learning_rate"] == pytest.approx(0.02 * best[name], rel=1e-5)
        assert not arm["at_edge"]


def around_one(arm: str, multiple: float, seed: int) -> float:
    return 50 - abs(multiple - 1)


def test_a_wider_grid_takes_over_what_is_done_and_says_what_it_would_have_said(recipe: Path, tmp_path: Path) -> None:
    first = made_up(recipe, tmp_path / "c", around_one, grid=[1.0, 10.0])
    assert first["arms"]["spg"]["at_edge"]
    wider = [0.3, 1.0, 3.0, 10.0]
    again = made_up(recipe, tmp_path / "c", around_one, grid=wider)  # a run that is done again would find its folder
    assert again == made_up(recipe, tmp_path / "fresh", around_one, grid=wider)
    assert not again["arms"]["spg"]["at_edge"]


@pytest.mark.parametrize(
    ("before", "best", "after"),
    [
        ([1.0, 10.0], 1.0, [0.3, 1.0, 3.0, 10.0]),
        ([1.0, 10.0], 10.0, [0.3, 1.0, 3.0, 10.0, 30.0]),
        ([0.01, 0.02, 0.04, 0.1], 0.005, [0.001111, 0.003333, 0.01, 0.02, 0.04, 0.1, 0.3, 1.0, 3.0]),
        ([0.30001, 2.0], 1.0, [0.30001, 1.0, 2.0, 3.0]),  # the folder of 0.3 is taken
    ],
)
def test_auto_keeps_the_learning_rates_of_the_list_before_it(
    before: list[float], best: float, after: list[float], recipe: Path, tmp_path: Path
) -> None:
    def validation(arm: str, multiple: float, seed: int) -> float:
        return 50 - abs(math.log(multiple / best))

    made_up(recipe, tmp_path / "c", validation, grid=before)
    done = read_results(tmp_path / "c" / "results.jsonl").keys()
    document = made_up(recipe, tmp_path / "c", validation, grid="auto", taken_over=before)
    assert [float(f"{multiple:.4g}") for multiple in document["multiples"]] == [float(f"{m:.4g}") for m in after]
    assert {run.multiple for run in done} == set(before) <= set(document["multiples"])
    assert document == made_up(recipe, tmp_path / "fresh", validation, grid="auto", taken_over=before)
    again = made_up(recipe, tmp_path / "c", validation, grid="auto", taken_over=before)
    assert again == document, "the same from what is all done"


def test_a_line_that_a_crash_cut_off_takes_none_with_it(tmp_path: Path) -> None:
    first, second = (Result(Run("plain", 1.0, seed), {"top1": 50.0}, "runs", 10, 2.5) for seed in (0, 1))
    path = tmp_path / "results.jsonl"
    add_result(path, first)
    path.write_text(path.read_text() + path.read_text()[:40])
    add_result(path, second)
    assert read_results(path) == {first.run: first, second.run: second}


def test_auto_gives_up_after_four_values_on_a_side(recipe: Path, tmp_path: Path) -> None:
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: m)
    assert len(document["arms"]["plain"]["learning_rates"]) == 3 + 4
    assert document["arms"]["plain"]["at_edge"]


def test_a_run_that_breaks_off_counts_as_worst(recipe: Path, tmp_path: Path) -> None:
    def validation(arm: str, multiple: float, seed: int) -> float | None:
        return None if multiple == 10 and seed == 1 else multiple

    document = made_up(recipe, tmp_path / "c", validation, grid=[1.0, 3.0, 10.0])
    arm = document["arms"]["spg"]
    assert (arm["learning_rate"], arm["broken_off"], arm["learning_rates"][2]["validation"]) == (0.06, 1, None)
    assert arm["runs"] == 6
    with pytest.raises(SurgeonError, match="NaN or infinity at every learning rate"):
        made_up(recipe, tmp_path / "d", lambda arm, m, seed: None, grid=[1.0])


def test_one_seed_has_an_interval_over_pictures(recipe: Path, tmp_path: Path) -> None:
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: 50.0, grid=[1.0], seeds=1)
    difference = document["arms"]["spg"]["difference"]
    assert (difference["mean"], difference["agree"]) == (1.0, 1)
    assert difference["low"] < 0 < difference["high"]
    assert document["arms"]["spg"]["verdict"] == "no difference shown"


def test_seeds_that_do_not_choose_train_with_what_is_chosen(recipe: Path, tmp_path: Path) -> None:
    """Of four seeds the first alone chooses; the others would have chosen otherwise."""
    grid = [0.3, 1.0, 3.0]

    def validation(arm: str, multiple: float, seed: int) -> float:
        return multiple if seed else -abs(multiple - 1)

    document = made_up(recipe, tmp_path / "c", validation, grid=grid, seeds=4, choosing_seeds=1)
    for name, arm in document["arms"].items():
        assert (arm["multiple"], arm["runs"], arm["validation"]) == (1.0, 3 + 3, 0), name
        assert arm["scores"] == [10, 11, 12, 13]
    runs = read_results(tmp_path / "c" / "results.jsonl")
    assert {(run.multiple, run.seed) for run in runs} == {(m, 0) for m in grid} | {(1.0, seed) for seed in (1, 2, 3)}
    assert dict(remarks(document))["chosen by"].endswith("by seed 0 alone")
    again = made_up(recipe, tmp_path / "c", validation, grid=grid, seeds=4, choosing_seeds=1)
    assert again == document, "what those that do not choose found does not change the choice"
    record = read_comparison(tmp_path / "c", "c", 0)
    assert (record.done, record.planned) == (12, 12)
    assert [trial.done for trial in record.trials["spg"]] == [1, 1, 1]
    progress = how_far(tmp_path / "c")
    assert progress is not None
    assert (progress.runs_done, progress.runs, progress.epochs_done, progress.epochs) == (12, 12, 12, 12)


def test_a_chosen_rate_at_which_another_seed_breaks_off_is_no_result(recipe: Path, tmp_path: Path) -> None:
    with pytest.raises(SurgeonError) as stopped:
        made_up(recipe, tmp_path / "c", lambda a, m, seed: None if seed else 50.0, grid=[1.0], choosing_seeds=1)
    assert stopped.value.code == "chosen-rate-diverges"
