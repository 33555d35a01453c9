"""Epochs that are added when a run resumes: as if it always had them, or refused with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import TINY, spgsurgeon, succeed

from spgsurgeon.recipe import read_recipe

RUN = ("--recipe", "digits-dropout", "training.device=cpu", "data.limit=8", "training.batch_size=16", "data.workers=0")


def train(run: Path, *settings: str) -> str:
    return str(succeed("train", *TINY, *RUN, *settings, "-o", run, "--json").document["content_hash"])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", ["{name: constant, warmup_epochs: 1}", "{name: step, every: 2}"])
def test_a_run_with_more_epochs_is_the_one_that_had_them_from_the_start(schedule: str, tmp_path: Path) -> None:
    settings = f"training.schedule={schedule}"
    whole = train(tmp_path / "whole", settings, "training.epochs=4")
    train(tmp_path / "run", settings, "training.epochs=2")
    resumed = succeed("train", "--resume", "-o", tmp_path / "run", "training.epochs=4", "--json").document
    assert [note for note in resumed["notes"] if "training.epochs was 2 and is 4 now" in note]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert resumed["content_hash"] == whole
    assert read_recipe(tmp_path / "run" / "recipe.yaml").training.epochs == 4
    again = succeed("train", "--resume", "-o", tmp_path / "run", "--json").document
    assert again["content_hash"] == whole


@pytest.mark.slow
def test_what_can_not_be_raised_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(run, "training.schedule={name: cosine}", "training.epochs=1")
    before = (run / "recipe.yaml").read_text()
    for epochs, code in ((2, "schedule-has-an-end"), (0, "recipe")):
        outcome = spgsurgeon("train", "--resume", "-o", run, f"training.epochs={epochs}", "--json")
        assert (outcome.code, outcome.document["error"]["code"]) == (2, code)
    recipe = (*RUN, "training.schedule={name: cosine}", "training.epochs=3")
    given = spgsurgeon("train", *TINY, *recipe, "--resume", "-o", run)
    assert given.code == 2
    assert "cosine" in given.err
    assert (run / "recipe.yaml").read_text() == before


@pytest.mark.slow
def test_fewer_epochs_are_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", "training.schedule={name: constant}", "training.epochs=2")
    outcome = spgsurgeon("train", "--resume", "-o", tmp_path / "run", "training.epochs=1", "--json")
    assert outcome.document["error"]["code"] == "fewer-epochs"


@pytest.mark.slow
def test_other_keys_are_still_refused(tmp_path: Path) -> None:
    train(tmp_path / "run", "training.schedule={name: constant}", "training.epochs=1")
    command = ("train", "--resume", "-o", tmp_path / "run", "training.epochs=2", "training.batch_size=8")
    assert spgsurgeon(*command).code == 2
    plan = succeed(*command[:-1], "--dry-run", "--json").document
    assert plan["epochs"] == 2
    assert read_recipe(tmp_path / "run" / "recipe.yaml").training.epochs == 1
