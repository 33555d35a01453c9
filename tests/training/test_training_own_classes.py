"""A folder of one's own: the head that it calls for, how its images are scored, and what is said before training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import make_image_folder, spgsurgeon, succeed

from spgsurgeon.models.preprocessing import Preprocessing

QUICK = ("training.epochs=1", "training.batch_size=8", "training.device=cpu", "data.workers=0", "data.image_size=64")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of seven classes with weights of its own."""
    folder = tmp_path_factory.mktemp("base")
    succeed("graft", "timm/test_resnet", "--random-weights", "--num-classes", 7, "-o", folder / "grafted")
    succeed("strip", folder / "grafted", "-o", folder / "base", "--export", "safetensors")
    return folder / "base"


@pytest.mark.slow
def test_the_recipe_takes_its_classes_from_the_folder(base: Path, tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "mine", splits=("",), classes=3, each=10)
    command = ("train", base, "--recipe", "my-classes", f"data.path={data}", *QUICK, "head_start.max_epochs=1")
    outcome = succeed(*command, "data.eval_crop_pct=1", "-o", tmp_path / "run", "--json")
    assert outcome.document["untrained"] == "head"
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["phase"] for line in lines] == ["head", "train"]
    assert sum(lines[1]["accepted_units"].values()) == 24, "the last batch is kept"
    succeed("strip", tmp_path / "run", "-o", tmp_path / "better")
    scored = succeed("eval", tmp_path / "better", "--data", data, "--split", ".", "--json").document
    assert (scored["image_size"], scored["resized_to"], scored["crop_pct"]) == ([64, 64], [64, 64], 1.0)


@pytest.mark.slow
def test_a_head_that_fits_is_kept(base: Path, tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "seven", splits=("",), classes=7, each=5)
    command = ("train", base, "--recipe", "my-classes", f"data.path={data}", *QUICK)
    plan = succeed(*command, "-o", tmp_path / "run", "--dry-run", "--json").document
    assert plan["untrained"] is None
    assert plan["head_start_steps"] == 0


def test_splits_are_not_taken_for_classes(base: Path, tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "splits", each=4)
    command = ("train", base, "--recipe", "my-classes", f"data.path={data}", *QUICK, "-o", tmp_path / "run", "--json")
    refused = spgsurgeon(*command, "--dry-run")
    assert refused.document["error"]["code"] == "splits-as-classes"
    named = ("data.train=train", "data.eval=val", "data.holdout=null")
    assert succeed(*command, "--dry-run", *named).document["data"]["classes"] == 2


def test_what_is_cut_off_in_evaluation() -> None:
    preprocessing = Preprocessing(input_size=(3, 96, 96), crop_pct=0.875)
    assert preprocessing.resized_to == (109, 109)
    assert preprocessing.cropped(None) == preprocessing
    assert preprocessing.cropped(1.0).resized_to == (96, 96)
    refused = spgsurgeon("recipes", "check", "camvid-lraspp-dropout", "data.eval_crop_pct=1", "--json")
    assert refused.code == 2
