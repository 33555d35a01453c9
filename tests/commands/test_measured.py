"""What a card says of a run's measurement: the data its scores are of, and the control of its comparison."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, succeed
from huggingface_hub import ModelCard
from made_up_comparisons import RECIPE, made_up

from spgsurgeon.commands import measured
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.measured import control_of, evaluation_of
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.timm_library import TimmLibrary
from spgsurgeon.runs.checkpoints import recipe_of
from spgsurgeon.tasks.classification import CLASSIFICATION

FEW = ("data.limit=6", "data.holdout=0.1", "data.eval=holdout", "training.batch_size=20", "data.workers=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("measured") / "run"
    succeed("train", *TINY, *DIGITS, *FEW, "-o", path)
    return path


def test_the_scores_of_a_run_stand_beside_their_data_and_split(run, tmp_path):
    strip_folder(run, tmp_path / "stripped")
    head = ModelCard.load(tmp_path / "stripped" / "README.md").data
    found = {(result.dataset_name, result.dataset_split) for result in head.eval_results}
    assert found == {("digits", "0.1 of train, held out")}
    assert [result.metric_type for result in head.eval_results] == ["accuracy", "top5"]
    assert (head.base_model, head.license, head.datasets, head.metrics) == (None, None, None, ["accuracy"])


def test_strip_prints_the_line_that_puts_a_folder_on_the_hub(run, tmp_path):
    """The folder is the last argument of the Hub's own command, which knows the options; a file alone has no card."""
    folder = tmp_path / "our best"
    said = succeed("strip", run, "-o", folder).out.replace("\n", " ")
    line = " ".join(said.partition("to the Hub")[2].split())
    assert shlex.split(line) == ["hf", "upload", "OWNER/NAME", str(folder)]
    known = subprocess.run(
        [Path(sys.executable).with_name("hf"), "upload", "--help"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"repo_id.*local_path", known.stdout, re.IGNORECASE | re.DOTALL)
    assert "hf upload" not in succeed("strip", run, "-o", tmp_path / "one.safetensors").out
    assert "upload" not in json.dumps(succeed("strip", run, "-o", tmp_path / "again", "--json").document)


def test_a_hub_data_set_is_one_and_of_a_path_only_its_last_part_is_published(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    recipe = tmp_path / "run" / "recipe.yaml"
    for data, name, hub_id in (
        ("{source: hfds/owner/data, eval: validation}", "data", "owner/data"),
        ("{source: folder, path: /home/me/secret/flowers, eval: validation}", "flowers", None),
    ):
        recipe.write_text(f"data: {data}\n")
        found = evaluation_of(tmp_path / "run", CLASSIFICATION)
        assert (found.name, found.split, found.hub_id) == (name, "validation", hub_id)
    recipe.write_text("data: [\n")
    assert evaluation_of(tmp_path / "run", CLASSIFICATION) is None
    assert recipe_of(run) != recipe_of(tmp_path / "run")


def test_the_control_is_the_plain_arm_of_the_comparison_that_the_run_is_of(tmp_path, monkeypatch):
    monkeypatch.setattr(measured, "kind_of", lambda path: "run")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    rates = {"plain": 0.5, "spg": 2.0}
    document = made_up(
        tmp_path / "recipe.yaml",
        tmp_path / "out",
        lambda arm, multiple, seed: -abs(multiple - rates[arm]),
        grid=[0.5, 2.0],
    )
    runs, spg = tmp_path / "out" / "runs", document["arms"]["spg"]
    said = control_of(runs / "spg" / "lr-2" / "seed-0")
    assert f"top1 is {spg['mean']:.3f} on average, and {document['arms']['plain']['mean']:.3f} after plain" in said
    assert f"The difference is {spg['difference']['mean']:+.3f} (95 % interval" in said
    assert said.endswith(f": {spg['verdict']}.")
    assert "over 2 seeds" in said
    assert control_of(runs / "spg" / "lr-0.5" / "seed-0") is None  # not with the rate that was chosen
    assert control_of(runs / "plain" / "lr-0.5" / "seed-0") is None  # it is the control
    assert control_of(tmp_path / "out" / "base") is None


@pytest.mark.parametrize("num_classes", [1000, 7])
def test_the_base_of_named_weights_is_their_repository(num_classes, tmp_path, monkeypatch):
    identity = Identity("timm", "test_resnet", 1000, {}, {"tag": "r160_in1k", "license": "apache-2.0"})
    monkeypatch.setattr(TimmLibrary, "pretrained", lambda *_: (TimmLibrary().build(identity), identity))
    graft_folder("timm/test_resnet", tmp_path / "grafted", num_classes=num_classes)
    strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    head = ModelCard.load(tmp_path / "stripped" / "README.md").data
    assert (head.base_model, head.license) == ("timm/test_resnet.r160_in1k", "apache-2.0")
    assert TimmLibrary().hub_id("hf-hub:owner/name@main", identity) == "owner/name"
