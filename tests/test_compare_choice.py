"""`compare`: what it chooses, when its grid grows, and what it says of the chosen, on made-up scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.reporting.comparison_table import markdown
from spgsurgeon.workflows.comparing_arms import settle_arms
from spgsurgeon.workflows.comparing_choice import Comparison
from spgsurgeon.workflows.comparing_plan import Plan, versions
from spgsurgeon.workflows.comparing_runs import Result, Task, perform
from spgsurgeon.workflows.comparing_scores import Scored

RECIPE = "data: {source: digits, holdout: 0.1}\ntraining: {optimizer: {lr: 0.02}}\n"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


class MadeUp:
    """A crew that trains nothing: `validation` gives a run's score by arm, multiple and seed; None breaks it off."""

    def __init__(self, validation: Callable[[str, float, int], float | None]) -> None:
        self._validation = validation

    def call(self, function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        for given in reversed(calls):  # they come in any order
            yield self._perform(given[0]) if function is perform else self._score(*given)

    def _perform(self, task: Task) -> Result:
        run = task.run
        score = self._validation(run.arm, run.multiple, run.seed)
        scores = None if score is None else {"top1": score, "loss": 1.0}
        (task.output / run.folder).mkdir(parents=True)
        return Result(run, scores, str(run.folder), 10, 2.5, "NaN" if score is None else None)

    def _score(self, name: str, seed: int, folder: Path, recipe: Any) -> tuple[str, int, Scored]:
        multiple = float(folder.parent.name.removeprefix("lr-")) if name else 0.0
        hits = np.array([index < 90 + (name == "spg") for index in range(100)], dtype=np.int64)
        own = int(folder.name.removeprefix("seed-")) if name else 0
        return name, seed, Scored({"top1": 10 * multiple + own, "samples": 100}, hits)


def made_up_plan(grid: list[float] | str, seeds: int, budget: str = "epochs") -> Plan:
    return Plan(
        model="m",
        base_hash="",
        recipe={},
        arms={},
        seeds=list(range(seeds)),
        learning_rates=grid,
        budget=budget,
        versions=versions(),
        metric="top1",
        epochs={"plain": 1, "spg": 1},
    )


def made_up(
    recipe: Path,
    output: Path,
    validation: Callable[[str, float, int], float | None],
    *,
    grid: list[float] | str = "auto",
    seeds: int = 2,
) -> dict[str, Any]:
    settled = read_recipe(recipe)
    arms = settle_arms(["spg"], recipe, [], settled)
    plan = made_up_plan(grid, seeds)
    crew: Any = MadeUp(validation)
    output.mkdir(exist_ok=True)  # with the results of an earlier one
    comparison = Comparison(output, str(recipe), [], settled, arms, plan, crew, lambda text: None)
    document, costs = comparison.run()
    table = markdown(document, costs)
    assert "| spg |" in table
    assert ("is at the grid's edge" in table) == any(arm["at_edge"] for arm in document["arms"].values())
    return document


def test_a_learning_rate_is_chosen_by_the_mean_over_seeds_and_not_by_the_scores(recipe: Path, tmp_path: Path) -> None:
    table = {1.0: (50, 90), 3.0: (71, 71), 10.0: (60, 60)}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: table[m][seed], grid=[1.0, 3.0, 10.0])
    arm = document["arms"]["spg"]
    assert (arm["learning_rate"], arm["validation"], arm["at_edge"]) == (0.06, 71, False)
    assert arm["scores"] == [30, 31]


def test_auto_grows_the_grid_of_all_arms_until_the_best_has_neighbours(recipe: Path, tmp_path: Path) -> None:
    best = {"plain": 27.0, "spg": 0.3}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: -abs(m / best[arm] - 1))
    for name, arm in document["arms"].items():
        multiples = [round(point["learning_rate"] / 0.02, 3) for point in arm["learning_rates"]]
        assert multiples == [0.1, 0.3, 1, 3, 9, 27, 81]
        assert arm["learning_rate"] == pytest.approx(0.02 * best[name], rel=1e-5)
        assert not arm["at_edge"]


@pytest.mark.parametrize("wider", [[0.3, 1.0, 3.0, 10.0], "auto"])
def test_a_wider_grid_takes_over_what_is_done_and_says_what_it_would_have_said(
    wider: list[float] | str, recipe: Path, tmp_path: Path
) -> None:
    def validation(arm: str, multiple: float, seed: int) -> float:
        return 50 - abs(multiple - 1)

    first = made_up(recipe, tmp_path / "c", validation, grid=[1.0, 10.0])
    assert first["arms"]["spg"]["at_edge"]
    again = made_up(recipe, tmp_path / "c", validation, grid=wider)  # a run that is done again would find its folder
    assert again == made_up(recipe, tmp_path / "fresh", validation, grid=wider)
    assert not again["arms"]["spg"]["at_edge"]


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
