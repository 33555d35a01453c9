"""`compare`: equal conditions for all arms, a choice that the scores know nothing of, and comparisons cut short."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, snapshot, spgsurgeon, succeed

from spgsurgeon.checkpoint.folders import read_manifest
from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.reporting.comparison_table import markdown
from spgsurgeon.reporting.run_records import read_epochs
from spgsurgeon.training.interruption import InterruptedRunError
from spgsurgeon.workflows import comparing_plan
from spgsurgeon.workflows.compare import compare
from spgsurgeon.workflows.comparing_arms import settle_arms
from spgsurgeon.workflows.comparing_choice import Comparison
from spgsurgeon.workflows.comparing_plan import Plan, complete, versions
from spgsurgeon.workflows.comparing_processes import hire
from spgsurgeon.workflows.comparing_runs import Result, Scored, Task, perform
from spgsurgeon.workflows.searching import Search, search

RECIPE = """
trp: {kind: dropout, replicas: 1}
objective: {weights: [0.4]}
data: {source: digits, image_size: 16, limit: 4, holdout: 0.05, eval: val, workers: 0}
training: {epochs: 1, batch_size: 20, eval_batch_size: 250, optimizer: {lr: 0.02}, device: cpu}
compare:
  arms:
    twin: {trp.kind: none}
    plain-twin: {trp: {kind: none}}
"""
ARMS, SEEDS = ["plain", "spg", "twin"], ["seed-0", "seed-1"]
SETTINGS: dict[str, Any] = {"arms": ARMS, "seeds": 2, "learning_rates": [3.0], "jobs": 1, "random_weights": True}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


def arguments(recipe: Path, output: Path) -> list[Any]:
    asked = ("--arms", ",".join(ARMS), "--seeds", 2, "--learning-rates", "3", "--jobs", 1)
    return ["compare", *TINY, "--recipe", recipe, *asked, "-o", output]


@pytest.fixture(scope="module")
def compared(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison's folder; its document is also in `stdout.json`, its table in `table.txt`."""
    folder = tmp_path_factory.mktemp("compared")
    outcome = succeed(*arguments(recipe, folder / "c"), "--json")
    (folder / "stdout.json").write_text(outcome.out)
    (folder / "table.txt").write_text(succeed(*arguments(recipe, folder / "c"), "--resume").out)
    return folder


def document_of(compared: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((compared / "c" / "compare.json").read_text())
    return found


# The whole job


def test_identical_arms_differ_by_nothing_at_all(compared: Path) -> None:
    arms = document_of(compared)["arms"]
    weights = {
        name: [read_manifest(compared / "c/runs" / name / "lr-3" / seed / "best").weights_hash for seed in SEEDS]
        for name in ARMS
    }
    assert weights["twin"] == weights["plain"]
    assert weights["spg"] != weights["plain"]
    assert len(set(weights["plain"])) == 2
    assert arms["twin"]["scores"] == arms["plain"]["scores"]
    difference = arms["twin"]["difference"]
    assert (difference["mean"], difference["bootstrap_low"], difference["bootstrap_high"]) == (0, 0, 0)
    assert difference["low"] == -difference["high"]
    assert arms["twin"]["verdict"] == "no difference shown"
    assert arms["twin"]["learning_rates"] == arms["plain"]["learning_rates"]


def test_the_document_has_what_scripts_rely_on(compared: Path) -> None:
    document = json.loads((compared / "stdout.json").read_text())
    assert document == document_of(compared)
    assert document.keys() >= {"arms", "original", "seeds", "metric", "chosen_on", "scored_on"}
    assert (document["seeds"], document["metric"], document["scored_on"]) == ([0, 1], "top1", "digits (val)")
    assert "held out" in document["chosen_on"]
    for arm in document["arms"].values():
        assert arm.keys() >= {"overrides", "learning_rate", "validation", "scores", "mean", "difference", "verdict"}
        assert (arm["at_edge"], arm["runs"], arm["steps"], len(arm["scores"])) == (True, 2, 2 * 2, 2)
    difference = document["arms"]["spg"]["difference"]
    assert set(difference) == {"mean", "low", "high", "bootstrap_low", "bootstrap_high", "detectable", "agree"}


def test_every_run_starts_from_one_file_and_is_scored_while_training_on_what_none_trains_on(compared: Path) -> None:
    runs = sorted((compared / "c" / "runs").glob("*/*/*/recipe.yaml"))
    assert len(runs) == 6
    for path in runs:
        recipe = read_recipe(path)
        assert recipe.model == str(compared / "c" / "base")
        assert (recipe.data.eval, f"seed-{recipe.training.seed}") == ("holdout", path.parent.name)
        assert recipe.training.optimizer.lr == pytest.approx(0.02 * float(path.parts[-3].removeprefix("lr-")))
    sources = {read_manifest(path.parent / "last").base["content_hash"] for path in runs}
    assert len(sources) == 1


def test_costs_figures_and_tables_are_there(compared: Path) -> None:
    folder = compared / "c"
    costs = json.loads((folder / "costs.json").read_text())["arms"]
    assert all((c["runs"], c["steps"], c["steps_of_choosing"]) == (2, 4, 0) for c in costs.values())
    assert {path.name for path in (folder / "figures").iterdir()} == {
        *("scores.png", "learning-rates.png", "valid-share.png")
    }
    for text in ((compared / "table.txt").read_text(), (folder / "compare.md").read_text()):
        assert "no difference shown" in text
        assert "the best learning rate is at the grid's edge" in text


# Cut short


def test_a_comparison_that_was_stopped_goes_on_to_the_same_document(
    compared: Path, recipe: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "c"
    shutil.copytree(compared / "c", folder, symlinks=True)
    lines = (folder / "results.jsonl").read_text().splitlines()
    (folder / "results.jsonl").write_text("\n".join([*lines[:4], lines[4][:50]]))
    os.unlink(folder / "compare.json")
    last = json.loads(lines[5])["folder"]
    shutil.rmtree(folder / last)
    for path in sorted(folder.glob("runs/**/recipe.yaml")):  # whose base was written elsewhere
        path.write_text(path.read_text().replace(str(compared), str(tmp_path)))
    said = []

    def stop_after_one(text: str) -> None:
        said.append(text)
        if text.startswith("5 of 6"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError) as stopped:
        compare(TINY[0], recipe=recipe, output=folder, resume=True, say=stop_after_one, **SETTINGS)
    assert (stopped.value.exit_code, stopped.value.hint) == (143, "go on with the same command and --resume")
    assert "4 of 6 runs are done" in said
    assert not (folder / last).exists()
    succeed(*arguments(recipe, folder), "--resume")
    assert (folder / "compare.json").read_text() == (compared / "c" / "compare.json").read_text()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--seeds", 3), "seeds differ"),
        (("--learning-rates", "1"), "learning_rates differ"),
        (("training.epochs=2",), "recipe.training.epochs differ"),
        (("--arms", "plain,twin"), "arms.spg differ"),
    ],
)
def test_other_arguments_are_another_comparison(
    changed: tuple[Any, ...], named: str, compared: Path, recipe: Path
) -> None:
    before = snapshot(compared / "c")
    refused = spgsurgeon(*arguments(recipe, compared / "c"), *changed, "--resume")
    assert (refused.code, named in refused.err) == (2, True), refused.err
    assert snapshot(compared / "c") == before


def test_an_older_comparison_is_not_replaced_unasked(compared: Path, recipe: Path, tmp_path: Path) -> None:
    before = snapshot(compared / "c")
    refused = spgsurgeon(*arguments(recipe, compared / "c"))
    assert (refused.code, "--force" in refused.err) == (2, True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear diary")
    for flag in ("--force", "--resume"):
        assert spgsurgeon(*arguments(recipe, tmp_path / "mine"), flag).code == 2
    assert (tmp_path / "mine" / "diary.txt").read_text() == "dear diary"
    assert snapshot(compared / "c") == before


def sleep(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.mark.slow
def test_a_signal_ends_all_processes_of_a_crew() -> None:
    started = []

    def work() -> Iterator[None]:
        with hire(2) as crew:
            for number, _ in enumerate(crew.call(sleep, [(0.01,)] * 4 + [(1.0,)] * 8)):
                started.append(number)
                if number == 3:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield

    with pytest.raises(InterruptedRunError) as stopped:
        list(work())
    assert stopped.value.exit_code == 143
    assert len(started) < 8, "what had not begun does not begin"


# Refusals


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--arms", "plain,sgp"), "there is no arm 'sgp'"),
        (("--arms", "spg,spg"), "arm spg is given twice"),
        (("--arms", "spg", "trp.kind=none"), "as the recipe has none"),
        (("--seeds", 0), "0 seeds"),
        (("--jobs", 0), "0 jobs"),
        (("--budget", "dollars"), "'dollars' is no budget"),
        (("--learning-rates", "1,x"), "neither auto nor numbers"),
        (("--learning-rates", "1,1"), "each given once"),
        (("--learning-rates", "0"), "greater than zero"),
        (("data.eval=holdout",), "can't be scored on too"),
        (("data={source: voc, path: somewhere}",), "only labelled pictures can be held out"),
        (("data.holdout=0.0001",), "is empty"),
        (("compare.arms={more: {data.image_size: 16}}",), "arms that differ in data can't be compared"),
        (("compare.arms={more: {training.seed: 1}}",), "arms that differ in training.seed can't be compared"),
        (("compare.arms={more: {trp.replica: 2}}",), "did you mean 'trp.replicas'"),
        (("compare.arms={plain: {trp.kind: dropout}}",), "there is a built-in arm of that name"),
        (("--arms", "more", "compare.arms={more: {trp.replicas: 2}}"), "arm more: "),
        (("--num-classes", 7), "digits (train)"),
    ],
)
def test_what_cannot_be_compared_is_refused_and_nothing_is_left(
    asked: tuple[Any, ...], said: str, recipe: Path, tmp_path: Path
) -> None:
    refused = spgsurgeon("compare", *TINY, "--recipe", recipe, "--jobs", 1, "-o", tmp_path / "c", *asked)
    assert (refused.code, said in refused.err) == (2, True), refused.err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_arm_names_the_nearest(recipe: Path, tmp_path: Path) -> None:
    refused = spgsurgeon("compare", *TINY, "--recipe", recipe, "--arms", "spg-epsiode", "-o", tmp_path / "c")
    assert "did you mean 'spg-episode'" in refused.err


def test_a_search_needs_optuna(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused = spgsurgeon("compare", *TINY, "--recipe", recipe, "--arms", "search", "-o", tmp_path / "c")
    assert (refused.code, "pip install 'spgsurgeon[search]'" in refused.err) == (2, True)


# Budgets


def test_a_budget_of_seconds_gives_an_arm_the_epochs_that_take_plains_time(
    compared: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds_of(model: str, *, recipe: str, overrides: list[str], count: int) -> float:
        return 1.0 if 'trp.kind="none"' in overrides else 3.2

    monkeypatch.setattr(comparing_plan, "time_steps", seconds_of)
    shared = ["training.epochs=10"]
    settled = read_recipe(recipe, shared)
    arms = settle_arms(["spg"], recipe, shared, settled)
    plan = made_up_plan([1.0], seeds=2, budget="seconds")
    complete(plan, compared / "c" / "base", str(recipe), shared, arms)
    assert plan.epochs == {"plain": 10, "spg": 3}
    assert plan.step_seconds == {"plain": 1.0, "spg": 3.2}


def test_a_search_spends_the_epochs_of_one_run_and_goes_on_where_it_was(
    compared: Path, recipe: Path, tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    base, seed = str(compared / "c" / "base"), 3
    overrides = ['trp={"kind": "fixed-dropout"}', "data.eval=holdout", f"training.seed={seed}"]

    def run() -> Search:
        return search(tmp_path / "s", base, str(recipe), overrides, 4, seed)

    found = run()
    epochs = [[e.evaluation for e in read_epochs(trial / "metrics.jsonl")[0]] for trial in found.trials]
    assert sum(map(len, epochs)) == 4
    assert len(found.trials) > 1
    assert max(map(len, epochs)) <= 2
    assert found.best is not None
    assert found.best["top1"] == max(e.top1 for trial in epochs for e in trial if e and e.top1 is not None)
    rates = {read_recipe(trial / "recipe.yaml").trp.rate for trial in found.trials}
    assert len(rates) == len(found.trials)
    assert run() == found, "it is finished"
    shutil.rmtree(found.trials[-1])
    again = run()
    assert (again.folder, again.trials) == (found.folder, found.trials)
    assert again.best["top1"] == found.best["top1"] if again.best else False


# The choice, on made-up scores


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
        hits = [index < 90 + (name == "spg") for index in range(100)]
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
    output.mkdir(exist_ok=True)
    comparison = Comparison(output, str(recipe), [], settled, arms, plan, crew, lambda text: None)
    document, costs = comparison.run()
    assert "| spg |" in markdown(document, costs)
    return document


def test_a_learning_rate_is_chosen_by_the_mean_over_seeds_and_not_by_the_scores(recipe: Path, tmp_path: Path) -> None:
    table = {1.0: (50, 90), 3.0: (71, 71), 10.0: (60, 60)}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: table[m][seed], grid=[1.0, 3.0, 10.0])
    arm = document["arms"]["spg"]
    assert (arm["learning_rate"], arm["validation"], arm["at_edge"]) == (0.06, 71, False)
    assert arm["scores"] == [30, 31]


def test_auto_grows_the_grid_of_all_arms_until_the_best_has_neighbours(recipe: Path, tmp_path: Path) -> None:
    best = {"plain": 30.0, "spg": 1 / 3}
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: -abs(m / best[arm] - 1))
    for name, arm in document["arms"].items():
        multiples = [round(point["learning_rate"] / 0.02, 3) for point in arm["learning_rates"]]
        assert multiples == [0.111, 0.333, 1, 3, 10, 30, 90]
        assert arm["learning_rate"] == pytest.approx(0.02 * best[name], rel=1e-5)
        assert not arm["at_edge"]


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
    with pytest.raises(SurgeonError, match="NaN or infinity at every learning rate"):
        made_up(recipe, tmp_path / "d", lambda arm, m, seed: None, grid=[1.0])


def test_one_seed_has_an_interval_over_pictures(recipe: Path, tmp_path: Path) -> None:
    document = made_up(recipe, tmp_path / "c", lambda arm, m, seed: 50.0, grid=[1.0], seeds=1)
    difference = document["arms"]["spg"]["difference"]
    assert (difference["mean"], difference["agree"]) == (1.0, 1)
    assert difference["low"] < 0 < difference["high"]
    assert document["arms"]["spg"]["verdict"] == "no difference shown"
