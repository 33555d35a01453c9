"""`compare`: equal conditions for all arms, a choice that the scores know nothing of, and comparisons cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import TINY, snapshot, spgsurgeon, succeed

from spgsurgeon.checkpoint.folders import read_manifest
from spgsurgeon.checkpoint.ownership import record
from spgsurgeon.checkpoint.writing import write_safetensors
from spgsurgeon.commands.compare import compare
from spgsurgeon.comparing import plan as comparing_plan
from spgsurgeon.comparing.arguments import arguments_of
from spgsurgeon.comparing.lineup.arms import line_up
from spgsurgeon.comparing.plan import Plan, complete, read_plan, started_plan
from spgsurgeon.comparing.pool import hire
from spgsurgeon.comparing.runs import Assignment, Run, perform
from spgsurgeon.comparing.starting import go_on
from spgsurgeon.errors import UsageError
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.runtime.signals import InterruptedRunError

RECIPE = """
trp: {kind: dropout, replicas: 1}
objective: {weights: [0.4]}
data: {source: digits, image_size: 16, limit: 5, holdout: 0.05, eval: val, workers: 0}
training: {epochs: 1, batch_size: 20, eval_batch_size: 250, optimizer: {lr: 0.02}, device: cpu}
compare:
  arms:
    twin: {trp.kind: none}
    plain-twin: {trp: {kind: none}}
"""
ROBUST = {
    "gce": (0.7, 0, 1),
    "label-smoothing": (0, 0.1, 1),
    "small-loss": (0, 0, 0.7),
    "spg-gce": (0.7, 0, 1),
}
"""Arms by their gce, label smoothing and small loss; the last is one of the recipe's own."""
ARMS, SEEDS = ["plain", "spg", "twin"], ["seed-0", "seed-1"]
FEWER = "data.limit=4"
SETTINGS: dict[str, Any] = {
    "overrides": [FEWER],
    "arms": ARMS,
    "seeds": 2,
    "learning_rates": [3.0],
    "jobs": 1,
    "random_weights": True,
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.yaml"
    path.write_text(RECIPE)
    return path


def arguments(recipe: Path, output: Path) -> list[Any]:
    asked = ("--arms", ",".join(ARMS), "--seeds", 2, "--learning-rates", "3", "--jobs", 1)
    return ["compare", *TINY, "--recipe", recipe, FEWER, *asked, "-o", output]


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
    assert document["base_seen"] is None
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
        *("differences.png", "scores.png", "learning-rates.png", "valid-share.png")
    }
    for text in ((compared / "table.txt").read_text(), (folder / "compare.md").read_text()):
        assert "no difference shown" in text
        assert "the best learning rate is at the grid's edge" in text


def test_a_report_shows_a_comparison_beside_its_runs(compared: Path, tmp_path: Path) -> None:
    folders = [compared / "c", *(compared / "c" / "runs" / arm / "lr-3" / "seed-0" for arm in ("spg", "plain"))]
    document = succeed("report", *folders, "-o", tmp_path / "out", "--json").document
    assert document["notes"] == []
    assert document["comparisons"][0]["arms"].keys() == set(ARMS)
    assert len(document["runs"]) == 2
    page = (tmp_path / "out" / "index.html").read_text()
    for words in ("1 comparison and 2 runs", "<h3>c</h3>", "spg/lr-3/seed-0", "Every key of the recipes"):
        assert words in page


@pytest.mark.slow
def test_two_processes_find_what_one_found(compared: Path, recipe: Path, tmp_path: Path) -> None:
    compare(TINY[0], recipe=recipe, output=tmp_path / "c", **SETTINGS | {"jobs": 2})
    assert (tmp_path / "c" / "compare.json").read_text() == (compared / "c" / "compare.json").read_text()


@pytest.mark.slow
def test_every_arm_trains_what_it_says(recipe: Path, tmp_path: Path) -> None:
    arms = ["spg-step", "spg-episode", "spg-episode-mean", "dropout", "rollouts", "depth", "long", *ROBUST]
    own = "compare.arms={long: {trp.replicas: 2, objective.weights: [0.4, 0.2]}, spg-gce: {objective.gce: 0.7}}"
    settings = SETTINGS | {"arms": arms, "seeds": 1, "overrides": [own]}
    document, costs = compare(TINY[0], recipe=recipe, output=tmp_path / "c", **settings)
    assert list(document["arms"]) == list(costs["arms"]) == ["plain", *arms]
    runs = {name: tmp_path / "c" / "runs" / name / "lr-3" / "seed-0" for name in document["arms"]}
    recipes = {name: read_recipe(run / "recipe.yaml") for name, run in runs.items()}
    forms = {name: recipes[name].objective.form for name in ("spg-step", "spg-episode", "spg-episode-mean", "depth")}
    assert forms == {
        "spg-step": "step",
        "spg-episode": "episode",
        "spg-episode-mean": "episode-mean",
        "depth": "episode",
    }
    assert [name for name in arms if getattr(recipes[name].trp, "rollouts", False)] == ["rollouts"]
    grafted = {name: read_manifest(run / "last").trp for name, run in runs.items()}
    assert grafted["depth"]["kind"] == "depth"
    assert grafted["dropout"] == {"kind": "fixed-dropout", "rate": 0.2}
    steps = {name: arm["valid_share"] and len(arm["valid_share"]) for name, arm in document["arms"].items()}
    assert steps == dict.fromkeys(arms, 2) | dict.fromkeys(["plain", "dropout", *ROBUST]) | {"long": 3, "spg-gce": 2}
    robust = {name: recipes[name].objective for name in ROBUST}
    assert {name: (one.gce, one.label_smoothing, one.small_loss) for name, one in robust.items()} == ROBUST
    assert len({read_manifest(run / "last").weights_hash for run in runs.values()}) == len(runs)


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
    (folder / last).mkdir()  # killed before its first checkpoint, and wherever its base was then
    (folder / last / "recipe.yaml").write_text("model: elsewhere\ndata: {source: digits}\n")
    record(folder / last, (folder / last).name)
    said = []

    def stop_after_one(text: str) -> None:
        said.append(text)
        if text.startswith("5 of 6"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError) as stopped:
        compare(TINY[0], recipe=recipe, output=folder, resume=True, say=stop_after_one, **SETTINGS)
    assert (stopped.value.exit_code, stopped.value.hint) == (143, "resume with the same command and --resume")
    assert "4 of 6 runs are done" in said
    assert not (folder / last / "last").exists()
    succeed("compare", "--resume", "-o", folder, "--jobs", 1, "data.cache=memory")
    assert (folder / "compare.json").read_text() == (compared / "c" / "compare.json").read_text()


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--seeds", 3), "seeds differ"),
        (("--learning-rates", "1"), "learning_rates differ"),
        (("--learning-rates", "1,10"), "learning_rates differ"),
        (("training.epochs=2",), "recipe.training.epochs differ"),
        (("--arms", "plain,twin"), "arms.spg differ"),
        (("--budget", "seconds"), "budget differ"),
        (("--recipe", "digits-dropout", "compare.arms={twin: {trp.kind: none}}"), "recipe.trp.replicas, recipe."),
    ],
)
def test_other_arguments_are_another_comparison(
    changed: tuple[Any, ...], named: str, alone: bool, compared: Path, recipe: Path
) -> None:
    before = snapshot(compared / "c")
    again = ["compare", "-o", compared / "c"] if alone else arguments(recipe, compared / "c")
    refused = spgsurgeon(*again, *changed, "--resume")
    assert (refused.code, named in refused.err) == (2, True), refused.err
    assert snapshot(compared / "c") == before


def test_a_base_that_is_named_again_has_to_be_the_same(compared: Path) -> None:
    for other in (("timm/test_resnet2", "--random-weights"), ("--weights", "raw"), (compared / "c" / "base",)):
        refused = spgsurgeon("compare", *other, "-o", compared / "c", "--resume")
        assert refused.code != 0, other


def test_the_recipe_that_is_kept_says_what_the_one_given_said(compared: Path, recipe: Path) -> None:
    """A recipe with every default written out would not: an arm's changes can come to something else there."""
    plan, names = read_plan(compared / "c"), ["spg", "depth"]
    kept = line_up(names, compared / "c" / "compare-recipe.yaml", plan.overrides)
    given = line_up(names, recipe, [FEWER])
    assert replace(kept, source=given.source) == given
    assert read_recipe(kept.source, [*kept.overrides, *kept.arms[-1].overrides]).objective.form == "episode"


def test_what_cannot_be_gone_on_with_alone_says_what_it_needs(compared: Path, recipe: Path, tmp_path: Path) -> None:
    asked = ("compare", "-o", tmp_path / "c", "--jobs", 1)
    refused = spgsurgeon(*asked)
    assert (refused.code, "no recipe was given" in refused.err) == (2, True)
    refused = spgsurgeon(*asked, "--resume")
    assert (refused.code, "no comparison" in refused.err, "-o names its folder" in refused.err) == (2, True, True)
    refused = spgsurgeon("compare", compared / "c", "-o", tmp_path / "c", "--resume")
    assert f"--resume -o {compared / 'c'}" in refused.err
    shutil.copytree(compared / "c", tmp_path / "c", symlinks=True)
    (tmp_path / "c" / "compare-recipe.yaml").unlink()  # as of an earlier version
    refused = spgsurgeon(*asked, "--resume")
    assert (refused.code, "does not hold its recipe" in refused.err) == (2, True)
    succeed(*asked, "--resume", "--recipe", recipe, FEWER)
    write_safetensors(tmp_path / "c" / "base" / "model.safetensors", {"fc.bias": torch.zeros(10)})
    refused = spgsurgeon(*asked, "--resume", "--recipe", recipe, FEWER)
    assert (refused.code, "is not what compare-plan.json was written for" in refused.err) == (1, True)


@pytest.mark.parametrize("grid", [[1.0, 3.0], "auto"])
def test_a_grid_may_become_wider(grid: Any, compared: Path, tmp_path: Path) -> None:
    earlier = read_plan(compared / "c")
    started = started_plan(replace(earlier, learning_rates=grid), earlier, tmp_path)
    assert (started.learning_rates, started.taken_over) == (grid, [3.0] if grid == "auto" else [])
    assert earlier == replace(started, learning_rates=[3.0], taken_over=[])
    assert started_plan(started, started, tmp_path) == started
    folder = shutil.copytree(compared / "c", tmp_path / "c", symlinks=True)
    asked = replace(arguments_of(earlier, folder), learning_rates=grid, names_the_base=False)
    lineup = line_up(ARMS, folder / "compare-recipe.yaml", earlier.overrides)
    assert (
        go_on(asked, lineup, earlier, folder, ModelRequest(str(asked.model)), lambda text: None)
        == started
        == read_plan(folder)
    )


def test_a_comparison_goes_on_with_another_cache(compared: Path, tmp_path: Path) -> None:
    plan = read_plan(compared / "c")
    other = {**plan.recipe, "data": {**plan.recipe["data"], "cache": "memory", "workers": 3}}
    assert started_plan(replace(plan, recipe=other), plan, tmp_path) == plan
    with pytest.raises(UsageError, match=r"recipe\.data\.limit differ"):
        started_plan(replace(plan, recipe={**other, "data": {**other["data"], "limit": 7}}), plan, tmp_path)


def test_a_plan_that_lists_the_defaults_of_every_kind_goes_on(compared: Path, tmp_path: Path) -> None:
    plan = read_plan(compared / "c")
    idle = {"blocks": None, "block": None, "init": "identity"}  # as it was once written out
    older = replace(plan, recipe={**plan.recipe, "trp": {**plan.recipe["trp"], **idle}})
    assert started_plan(plan, older, tmp_path) == older


def test_an_older_comparison_is_not_replaced_unasked(compared: Path, recipe: Path, tmp_path: Path) -> None:
    before = snapshot(compared / "c")
    refused = spgsurgeon(*arguments(recipe, compared / "c"))
    assert (refused.code, "--resume resumes it; --force" in refused.err) == (2, True)
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


def test_a_run_that_is_stopped_says_how_the_comparison_goes_on() -> None:
    def stopped_run() -> None:
        raise InterruptedRunError("the run was stopped", hint="spgsurgeon train --resume", number=2)

    with hire(1) as crew, pytest.raises(InterruptedRunError) as stopped:
        list(crew.call(stopped_run, [()]))
    assert (stopped.value.exit_code, stopped.value.hint) == (130, "resume with the same command and --resume")


def test_a_run_that_fails_says_whose_it_is(compared: Path, recipe: Path, tmp_path: Path) -> None:
    run = Run("spg", 1.0, 0)
    given = Assignment(
        run, tmp_path, compared / "c" / "base", str(recipe), ("data.eval=holdout", "data.holdout=0.0001"), 1
    )
    with pytest.raises(UsageError) as refused:
        perform(given)
    assert refused.value.message.startswith("arm spg, seed 0: a holdout of 0.0001")


# Looked at before

PLANNED = {"plain": ({"trp.kind": "none"}, 2), "spg": ({}, 2), "twin": ({"trp.kind": "none"}, 2)}


def test_a_dry_run_says_what_would_be_done_and_leaves_nothing(recipe: Path, tmp_path: Path) -> None:
    asked = (*arguments(recipe, tmp_path / "c"), "--learning-rates", "auto", "--dry-run")
    document = succeed(*asked, "--json").document
    assert {n: (arm["overrides"], arm["steps"]) for n, arm in document["arms"].items()} == PLANNED
    assert all(arm["estimated_memory_bytes"] > 10**6 for arm in document["arms"].values())
    assert (document["runs"], document["done"], document["learning_rates"]) == (18, 0, [0.006, 0.02, 0.06])
    assert (document["cache"], document["jobs"], document["devices"]) == ("none", 1, ["cpu"])
    assert document["output_is"] == "new"
    said = " ".join(succeed(*asked).out.split())
    for words in ("0.006, 0.02, 0.06 and more", "plain 2, spg 2, twin 2", "18, of which 0 are done", "which is new"):
        assert words in said
    fewer = (*asked, "--choosing-seeds", 1)
    assert succeed(*fewer, "--json").document["runs"] == 3 * (3 + 1)
    assert "seeds 0, 1; learning rates are chosen by 0" in " ".join(succeed(*fewer).out.split())
    refused = spgsurgeon(*asked, "data.holdout=0.0001")
    assert (refused.code, "is empty" in refused.err) == (2, True)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_becomes_of_a_folder_that_is_there(compared: Path, recipe: Path, tmp_path: Path) -> None:
    before, wider = snapshot(compared / "c"), ("--learning-rates", "auto", "data.cache=memory")
    alone = ("compare", "-o", compared / "c", "--resume", "--dry-run", "--jobs", 1)
    document = succeed(*alone, *wider, "--json").document
    assert (document["runs"], document["done"], document["output_is"]) == (18, 6, "resumed")
    assert {arm["steps"] for arm in document["arms"].values()} == {None}
    said = " ".join(succeed(*alone, *wider).out.split())
    assert "18, of which 6 are done, 1 at a time on cpu chosen by" in said
    assert "memory: images stay decoded" in said
    assert "seeds differ" in spgsurgeon(*alone, "--seeds", 3).err
    assert "choosing_seeds differ" in spgsurgeon(*alone, "--choosing-seeds", 1).err
    (tmp_path / "mine").mkdir()
    for folder, more, found in (
        (compared / "c", (), "in the way"),
        (compared / "c", ("--force",), "replaced"),
        (tmp_path / "mine", ("--force",), "in the way"),
    ):
        assert succeed(*arguments(recipe, folder), *more, "--dry-run", "--json").document["output_is"] == found
    assert snapshot(compared / "c") == before
    assert list(tmp_path.iterdir()) == [tmp_path / "mine"]


# Refusals


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (("--arms", "plain,sgp"), "there is no arm 'sgp'"),
        (("--arms", "spg,spg"), "arm spg is given twice"),
        (("--arms", "spg", "trp.kind=none"), "as the recipe has none"),
        (("--seeds", 0), "0 seeds"),
        (("--jobs", 0), "0 jobs"),
        (("--choosing-seeds", 0), "from 1 to the number of seeds, 5 (got 0)"),
        (("--choosing-seeds", 6), "from 1 to the number of seeds, 5 (got 6)"),
        (("--budget", "dollars"), "'dollars' is not a budget"),
        (("--learning-rates", "1,x"), "neither auto nor numbers"),
        (("--learning-rates", "1,1"), "each given once"),
        (("--learning-rates", "1,1.00001"), "to four digits"),
        (("--learning-rates", "0"), "greater than zero"),
        (("--learning-rates", "1,nan"), "greater than zero"),
        (("--learning-rates", "inf"), "greater than zero"),
        (("data.eval=holdout",), "can't be scored on too"),
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


# Budgets


@pytest.mark.slow
def test_a_budget_of_seconds_gives_an_arm_the_epochs_that_take_plains_time(
    compared: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds_of(model: str, *, recipe: str, overrides: list[str], count: int) -> float:
        return 1.0 if 'trp.kind="none"' in overrides else 3.2

    monkeypatch.setattr(comparing_plan, "time_steps", seconds_of)
    lineup = line_up(["spg"], recipe, ["training.epochs=10"])
    fields = {"arms": {}, "recipe": {}, "versions": {}, "learning_rates": [1.0], "budget": "seconds"}
    plan = Plan(model="m", base_hash="", seeds=[0, 1], **fields)
    complete(plan, compared / "c" / "base", lineup)
    assert plan.epochs == {"plain": 10, "spg": 3}
    assert plan.step_seconds == {"plain": 1.0, "spg": 3.2}
    assert [plan.share_of_plains_time(name) for name in ("plain", "spg")] == [1.0, 0.96]


def test_scores_of_the_split_that_is_trained_on_compare_nothing(tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("data: {source: folder, path: pictures, eval: train}\n")
    with pytest.raises(UsageError, match="the split that is trained on"):
        line_up(["plain"], recipe, ())
