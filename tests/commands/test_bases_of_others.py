"""`compare` and `bench` take bases that `train` takes: with the head of another task, or weights under others' keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import make_image_folder, spgsurgeon, succeed
from folder_runs import RECIPE, write_recipe
from tiny_texts import opinions_folder, reader

from spgsurgeon.commands import bench as workflow

FOREIGN = ("--arch", "timm/test_efficientnet", "--map-keys", "by-order")
QUICK = ("--seeds", 1, "--learning-rates", "1", "--jobs", 1, "data.holdout=0.25")


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model that labels words, texts with two classes, and a recipe for these."""
    work = tmp_path_factory.mktemp("tagger")
    reader(work / "model", "BertForTokenClassification", num_labels=3)
    opinions_folder(work / "data")
    write_recipe(work, "texts", epochs=1)
    return work


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of two classes under names that are nobody's."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("foreign") / "theirs.pth"
    state = timm.create_model("test_efficientnet", num_classes=2).state_dict()
    torch.save(
        {f"part{place}.{key.rpartition('.')[2]}": value for place, (key, value) in enumerate(state.items())}, path
    )
    return path


def comparing(tagger: Path, output: Path) -> tuple[Any, ...]:
    return ("compare", tagger / "model", "--recipe", tagger / RECIPE, *QUICK, "-o", output, "--json")


def test_compare_gives_a_base_the_head_of_another_task(tagger: Path, tmp_path: Path) -> None:
    asked = (*comparing(tagger, tmp_path / "c"), "--dry-run")
    assert spgsurgeon(*asked).code == 2, "it labels words, and the data has texts"
    plan = succeed(*asked, "--task", "text-classification", "--num-classes", 2).document
    assert plan["metric"] == "accuracy"


@pytest.mark.slow
def test_a_comparison_of_another_task_resumes_without_being_told_again(tagger: Path, tmp_path: Path) -> None:
    asked = comparing(tagger, tmp_path / "c")
    first = succeed(*asked, "--task", "text-classification", "--num-classes", 2).document
    (tmp_path / "c" / "results.jsonl").unlink()
    assert succeed("compare", "--resume", "-o", tmp_path / "c", "--json").document == first


def test_compare_takes_weights_by_their_order(foreign: Path, tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "data", each=8)
    small = (f"data={{path: {data}, holdout: 0.25, image_size: 32}}", "training.batch_size=4", "training.device=cpu")
    asked = ("compare", foreign, "--recipe", "digits-dropout", *QUICK, *small, "-o", tmp_path / "c", "--dry-run")
    assert spgsurgeon(*asked, *FOREIGN[:2]).code == 5
    assert succeed(*asked, *FOREIGN, "--json").document["runs"] == 2


def test_bench_takes_weights_by_their_order_and_the_head_of_another_task(
    foreign: Path, tagger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workflow, "FEWEST_BLOCKS", 2)
    quick = ("--device", "cpu", "--blocks", 2, "--steps", 1, "--batch-size", 4, "--json")
    found = succeed("bench", foreign, *FOREIGN, "--image-size", 32, *quick).document
    assert [note for note in found["notes"] if "by order" in note]
    texts = (f"data.path={tagger / 'data'}", "data.source=texts")
    asked = ("bench", tagger / "model", "--data", "recipe", *texts, *quick)
    assert spgsurgeon(*asked).code == 2
    found = succeed(*asked, "--task", "text-classification", "--num-classes", 2).document
    assert [note for note in found["notes"] if "text-classification" in note]
