"""Runs on labels made wrong by design, through the real entry point: what is said, written, scored and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import DIGITS, TINY, spgsurgeon, succeed
from made_up_comparisons import RECIPE, made_up
from numpy.typing import NDArray
from tiny_runs import ONE_PROCESS

from spgsurgeon.comparing.base import open_base
from spgsurgeon.comparing.reading import read_comparison
from spgsurgeon.data.loading.loader import TrainingBatches
from spgsurgeon.loading import ModelRequest
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.runs.episode_log import read_episodes
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.training.data import open_data
from spgsurgeon.training.weights.class_weights import class_weights

NOISE = "data.label_noise={kind: symmetric, rate: 0.5, seed: 7}"
FEW = ("data.limit=6", "data.eval=test", "data.eval_limit=60", "training.batch_size=20", "data.workers=0")
CONSTANT = "training.schedule={name: constant}"
SAID = "of the 60 training labels are wrong by design"


def train(run: Path, *settings: str) -> dict[str, object]:
    return succeed("train", *TINY, *DIGITS, *FEW, CONSTANT, *settings, "-o", run, "--json").document


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("noisy") / "run"
    out = succeed("train", *TINY, *DIGITS, *FEW, CONSTANT, NOISE, "training.record_episodes=true", "-o", run).err
    said = " ".join(out.split())
    assert SAID in said
    assert said.index(SAID) < said.index("epoch 1")
    return run


def test_the_recipe_of_the_run_says_it_and_its_records_have_the_given_labels(run: Path) -> None:
    recipe = read_recipe(run / "recipe.yaml")
    assert recipe.data.label_noise.model_dump() == {"kind": "symmetric", "rate": 0.5, "seed": 7, "pairs": None}
    data = open_data(recipe.data)
    given = data.train.labels().tolist()  # type: ignore[attr-defined]
    assert list(read_episodes(run).labels) == given
    true = {data.train.describe(i): data.train.whole.whole.read(int(n))[1] for i, n in enumerate(data.train.indices)}  # type: ignore[attr-defined]
    worst = succeed("episodes", run, "--worst", 60, "--json").document["worst"]
    assert len(worst) == 60
    assert {one["name"]: one["label"] for one in worst} == dict(zip(true, given, strict=True)) != true
    line = json.loads((run / "metrics.jsonl").read_text())
    assert len(line["pictures"]["shortest"]) > 0
    shown = {one["name"].partition(", ")[2]: one["label"] for one in line["pictures"]["shortest"]}
    assert shown.items() <= {name.partition(", ")[2]: one for name, one in zip(true, given, strict=True)}.items()


def test_scores_are_by_true_labels(run: Path) -> None:
    scored = succeed("eval", run, "--data", "digits", "--split", "test", "--json").document
    whole = succeed("train", run, *DIGITS, "data.eval=test", NOISE, "-o", run.parent / "x", "--dry-run", "--json")
    assert scored["samples"] == whole.document["data"]["eval"]["samples"] == 697
    evaluation = open_data(read_recipe(run / "recipe.yaml").data).evaluation
    clean = open_data(read_recipe("digits-dropout", ["data.eval=test", "data.eval_limit=60"]).data).evaluation
    assert (evaluation.labels() == clean.labels()).all()  # type: ignore[attr-defined]


def test_card_and_report_say_it(run: Path, tmp_path: Path) -> None:
    succeed("strip", run, "-o", tmp_path / "better")
    card = (tmp_path / "better" / "README.md").read_text()
    assert "made **wrong by design** (symmetric, rate 0.5)" in card
    assert SAID not in card  # which would be among what is said of the base
    succeed("report", run, "-o", tmp_path / "report")
    assert "symmetric label noise, rate 0.5, seed 7" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.slow
def test_it_resumes_exactly_and_a_cache_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = train(tmp_path / "whole", NOISE, "training.epochs=2")
    train(tmp_path / "run", NOISE)
    resumed = succeed("train", "--resume", "-o", tmp_path / "run", "training.epochs=2", "--json").document
    assert resumed["content_hash"] == whole["content_hash"]
    assert [note for note in resumed["notes"] if SAID in note]
    monkeypatch.setenv("SPGSURGEON_DECODED_PICTURES", str(tmp_path / "decoded"))
    clean = train(tmp_path / "clean", "data.cache=memory", "training.epochs=2")
    cached = train(tmp_path / "cached", NOISE, "data.cache=memory", "training.epochs=2")
    assert cached["content_hash"] == whole["content_hash"] != clean["content_hash"]
    other = spgsurgeon("train", *TINY, *DIGITS, *FEW, CONSTANT, "--resume", "-o", tmp_path / "run", "--json")
    assert other.code == 2
    assert "data.label_noise" in other.document["error"]["message"]


def test_parts_balance_and_weights_go_by_the_given_labels() -> None:
    def opened(*settings: str) -> tuple[Any, NDArray[np.int64]]:
        train = open_data(read_recipe("digits-dropout", [NOISE, *settings]).data).train
        return train, train.labels()  # type: ignore[attr-defined]

    train, given = opened()
    counts = np.bincount(given)
    weights = class_weights("balanced", train, "digits", CLASSIFICATION, ONE_PROCESS)
    assert weights is not None
    assert weights.tolist() == pytest.approx((600 / (10 * counts)).tolist())
    batches = TrainingBatches(train, lambda image: torch.zeros(1), batch_size=100, workers=0, seed=0, balance=True)
    drawn = torch.cat([batch.targets for batch in batches.epoch(0)])
    assert drawn.bincount().tolist() == [60] * 10 != counts.tolist()
    assert np.bincount(opened("data.limit=6")[1]).tolist() == [6] * 10


def test_a_comparison_says_it_and_so_does_its_report(tmp_path: Path) -> None:
    request = ModelRequest("timm/test_resnet", random_seed=0)
    assert [note for note in open_base(request, read_recipe("digits-dropout", [NOISE])).notes if "wrong by" in note]
    recipe, found = tmp_path / "recipe.yaml", {}
    for name, section in (("clean", RECIPE), ("noisy", RECIPE.replace("holdout", "label_noise: {rate: 0.5}, holdout"))):
        recipe.write_text(section)
        made_up(recipe, tmp_path / name, lambda arm, multiple, seed: 1.0, grid=[1.0])
        facts = read_comparison(tmp_path / name, name, 0).facts
        found[name] = facts.get("wrong labels by design")
    assert found == {"clean": None, "noisy": "symmetric label noise, rate 0.5, seed 0"}
