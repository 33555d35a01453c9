"""The controls through the command line: dropout of a fixed rate, and a forward pass for each step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, spgsurgeon, succeed

from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.recipe.reading import read_recipe

FEW = ("data.limit=6", "data.holdout=0.1", "data.eval=holdout", "training.batch_size=20", "data.workers=0")
FIXED = ("trp={kind: fixed-dropout, rate: 0.4}",)


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("fixed") / "run"
    succeed("train", *TINY, *DIGITS, *FEW, *FIXED, "-o", run)
    return run


def test_a_run_with_fixed_dropout_is_a_folder_without_replicas(fixed: Path) -> None:
    manifest = json.loads((fixed / "last" / "graft.json").read_text())
    assert (manifest["trp"], manifest["temporary_parameters"]) == ({"kind": "fixed-dropout", "rate": 0.4}, 0)
    assert read_safetensors(fixed / "last" / "temporary.safetensors")[0] == {}
    line = json.loads((fixed / "metrics.jsonl").read_text())
    assert (line["valid_share"], line["accepted_units"]) == ([1.0], {"0.4": 60})


def test_it_is_another_run_than_the_plain_one(fixed: Path, tmp_path: Path) -> None:
    run = tmp_path / "plain"
    succeed("train", *TINY, *DIGITS, *FEW, "trp.kind=none", "-o", run)
    losses = [json.loads((one / "metrics.jsonl").read_text())["loss"] for one in (fixed, run)]
    assert losses[0] != losses[1]


def test_it_is_stripped_inspected_reported_and_retrained_as_a_base(fixed: Path, tmp_path: Path) -> None:
    stripped = succeed("strip", fixed, "-o", tmp_path / "better", "--json").document
    assert set(stripped["proof"].values()) == {True}
    card = (tmp_path / "better" / "README.md").read_text()
    assert "retrained with dropout" in card
    assert "Sequential Policy Gradient" not in card
    assert "temporary modules, gone" not in card
    assert succeed("inspect", fixed, "--json").document["grafted"] is None
    again = succeed("train", fixed, *DIGITS, *FEW, "-o", tmp_path / "again", "--dry-run", "--json").document
    assert again["trp"] == {"kind": "dropout", "replicas": 3, "rate": 0.2}
    succeed("report", fixed, "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "plain retraining with dropout of rate 0.4 before the head, a control" in page


def test_the_control_of_a_grafted_folder_takes_its_base(tmp_path: Path) -> None:
    succeed("graft", *TINY, "--num-classes", 10, "-o", tmp_path / "grafted")
    dry = ("train", tmp_path / "grafted", *DIGITS, *FEW, "-o", tmp_path / "run", "--dry-run")
    plan = succeed(*dry, "trp.kind=fixed-dropout", "--json").document
    assert (plan["trp"], plan["temporary_parameters"]) == ({"kind": "fixed-dropout", "rate": 0.2}, 0)
    assert "none: plain retraining with dropout of rate 0.2 before the head" in succeed(
        *dry, "trp.kind=fixed-dropout"
    ).out.replace("\n", " ")


def test_weights_of_steps_mean_nothing_without_replicas() -> None:
    recipe = read_recipe("digits-dropout", ["trp.kind=fixed-dropout", "objective.weights=[1.0]"])
    assert recipe.trp.kind == "fixed-dropout"


def test_rollouts_train_and_leave_what_the_single_pass_leaves(tmp_path: Path) -> None:
    rollouts = (*TINY, *DIGITS, *FEW, "trp.rollouts=true", "-o", tmp_path / "run")
    plan = succeed("train", *rollouts, "--dry-run", "--json").document
    assert plan["passes"] == 4
    assert "4 passes of the model a step" in " ".join(succeed("train", *rollouts, "--dry-run").out.split())
    succeed("train", *rollouts)
    manifest = json.loads((tmp_path / "run" / "last" / "graft.json").read_text())
    assert manifest["trp"] == {"kind": "dropout", "replicas": 3, "rate": 0.2}
    line = json.loads((tmp_path / "run" / "metrics.jsonl").read_text())
    assert len(line["valid_share"]) == 4
    assert set(succeed("strip", tmp_path / "run", "-o", tmp_path / "out", "--json").document["proof"].values()) == {
        True
    }


@pytest.mark.parametrize(
    ("override", "fault"),
    [
        ("trp={kind: fixed-dropout, blocks: 2}", "trp.blocks: blocks is not a setting of fixed-dropout replicas"),
        ("trp={kind: fixed-dropout, init: all-zero}", "trp.init: init is not a setting of fixed-dropout replicas"),
        ("trp={kind: fixed-dropout, rollouts: true}", "trp.rollouts: rollouts is not a setting of fixed-dropout"),
        ("trp={kind: depth, rollouts: true}", "trp.rollouts: rollouts is not a setting of depth replicas"),
        ("trp={rollouts: true, head_batch: sequential}", "trp.rollouts: rollouts take each step through the heads"),
        ("trp={kind: fixed-dropout, rate: 1.0}", "trp.rate: 1.0 is refused, it must be less than 1"),
        ("trp.rollouts=3", "trp.rollouts: 3 is refused, it must be true or false"),
    ],
)
def test_settings_that_do_not_go_together(override: str, fault: str, tmp_path: Path) -> None:
    outcome = spgsurgeon("train", *TINY, *DIGITS, override, "-o", tmp_path / "run")
    assert outcome.code == 2
    assert fault in " ".join(outcome.err.split())


def test_graft_does_not_offer_a_control(tmp_path: Path) -> None:
    outcome = spgsurgeon("graft", *TINY, "--trp", "fixed-dropout", "-o", tmp_path / "out")
    assert outcome.code == 2
