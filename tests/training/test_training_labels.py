"""Training and comparing on data whose classes are the model's in another order, in part, or under other names."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from PIL import Image
from timm.models._hub import save_for_hf

NAMES = ["ant", "bee", "cow"]
MODELS = ["cow", "ant", "bee"]
COLOURS = [(250, 10, 10), (10, 250, 10), (10, 10, 250)]
STILL = ["training.optimizer.lr=1e-12", "training.epochs=1", "training.batch_size=4", "training.device=cpu"]
PLAIN = ["trp.kind=none", "data.image_size=32", "data.augment.crop=resize", "data.augment.flip=0"]


def data(root: Path, names: list[str], *, images: int = 4) -> Path:
    """Write class folders, the images of class n in one of three colours."""
    for split in ("train", "val"):
        for name in names:
            (root / split / name).mkdir(parents=True)
            for number in range(images):
                Image.new("RGB", (32, 32), COLOURS[names.index(name)]).save(root / split / name / f"{number}.png")
    return root


def knowing(folder: Path, names: list[str] | None = MODELS) -> Path:
    """Write a model, without batch norms, that knows the classes of `data`: its head has cow, ant, bee."""
    torch.manual_seed(0)
    model = timm.create_model("test_convnext", num_classes=3).eval()
    with torch.no_grad():
        images = (torch.tensor(COLOURS) / 255).view(3, 3, 1, 1).expand(3, 3, 32, 32)
        mean, std = (torch.tensor(model.pretrained_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
        seen = model.forward_head(model.forward_features((images - mean) / std), pre_logits=True)
        targets = 20 * torch.eye(3)[[MODELS.index(name) for name in NAMES]]
        solution = torch.linalg.pinv(torch.cat([seen, torch.ones(3, 1)], 1)) @ targets
        model.head.fc.weight.copy_(solution[:-1].T)
        model.head.fc.bias.copy_(solution[-1])
    save_for_hf(model, str(folder), model_config={"label_names": names} if names else None)
    return folder


def trained(model: Path, path: Path, output: Path, *settings: str) -> dict[str, Any]:
    command = ("train", model, "--recipe", "cifar10-few", f"data.path={path}", "data.eval=val", "data.holdout=null")
    more = ("data.limit=null", "data.cache=none", "data.workers=0", *PLAIN, *STILL, *settings, "-o", output, "--json")
    return succeed(*command, *more).document


def names_in(folder: Path) -> list[str]:
    found: list[str] = json.loads((folder / "config.json").read_text())["label_names"]
    return found


@pytest.mark.slow
def test_a_head_is_kept_by_name_through_training_resuming_stripping_and_scoring(tmp_path: Path) -> None:
    path, model = data(tmp_path / "data", NAMES), knowing(tmp_path / "model")
    document = trained(model, path, tmp_path / "run")
    assert document["original"]["top1"] == document["best"]["top1"] == 100
    assert [note for note in document["notes"] if "by name" in note]
    assert names_in(tmp_path / "run" / "best") == MODELS
    resumed = succeed("train", "--resume", "-o", tmp_path / "run", "--json").document
    assert resumed["last"]["top1"] == 100
    succeed("strip", tmp_path / "run", "-o", tmp_path / "better")
    assert names_in(tmp_path / "better") == MODELS
    scored = succeed("eval", tmp_path / "better", "--data", path, "--workers", 0, "--json").document
    assert scored["top1"] == 100


@pytest.mark.slow
def test_names_in_part_the_same_are_refused_with_both_lists_and_a_table_settles_it(tmp_path: Path) -> None:
    path, model = data(tmp_path / "data", ["ant", "bee", "elk"]), knowing(tmp_path / "model")
    command = ("train", model, "--recipe", "cifar10-few", f"data.path={path}", "data.eval=val", "data.holdout=null")
    more = ("data.limit=null", "data.cache=none", "data.workers=0", *PLAIN, *STILL, "-o", tmp_path / "run", "--json")
    refused = spgsurgeon(*command, *more)
    assert refused.code == 2
    error = refused.document["error"]
    assert error["code"] == "other-classes"
    assert error["only_in_model"] == ["cow"]
    assert error["only_in_data"] == ["elk"]
    assert not (tmp_path / "run").exists()
    document = trained(model, path, tmp_path / "run", "data.class_map={elk: cow}")
    assert document["original"]["top1"] == 100
    assert names_in(tmp_path / "run" / "best") == MODELS
    scored = succeed("eval", tmp_path / "run", "--data", path, "--workers", 0, "--json").document
    assert scored["top1"] == 100
    by_number = trained(model, path, tmp_path / "by-number", "data.class_order=code-point")
    assert by_number["original"]["top1"] < 50
    assert names_in(tmp_path / "by-number" / "best") == ["ant", "bee", "elk"]


@pytest.mark.slow
def test_disjoint_names_go_by_number_said_or_by_a_file_that_a_resumed_run_watches(tmp_path: Path) -> None:
    path, model = data(tmp_path / "data", ["n01", "n02", "n03"]), knowing(tmp_path / "model")
    document = trained(model, path, tmp_path / "run")
    assert document["original"]["top1"] < 50
    assert [note for note in document["notes"] if "by number" in note]
    assert names_in(tmp_path / "run" / "best") == ["n01", "n02", "n03"]
    table = tmp_path / "table.tsv"
    table.write_text("n01\tant\nn02\tbee\nn03\tcow\n")
    mapped = trained(model, path, tmp_path / "mapped", f"data.class_map={table}")
    assert mapped["original"]["top1"] == 100
    scored = succeed("eval", model, "--data", path, "--class-map", table, "--workers", 0, "--json").document
    assert scored["top1"] == 100
    scored = succeed("eval", tmp_path / "mapped", "--data", path, "--workers", 0, "--json").document
    assert scored["top1"] == 100
    again = ("--recipe", "cifar10-few", f"data.path={path}", "data.eval=val", *PLAIN, "-o", tmp_path / "x", "--json")
    forgotten = spgsurgeon("train", tmp_path / "mapped", *again)
    assert forgotten.document["error"]["code"] == "class-map-missing"
    table.write_text("n01\tbee\nn02\tant\nn03\tcow\n")
    changed = spgsurgeon("train", "--resume", "-o", tmp_path / "mapped", "--json")
    assert changed.code == 2


@pytest.mark.slow
def test_a_comparison_scores_by_name_as_its_runs_do(tmp_path: Path) -> None:
    path, model = data(tmp_path / "data", NAMES, images=8), knowing(tmp_path / "model")
    command = ("compare", model, "--recipe", "cifar10-few", f"data.path={path}", "data.eval=val", "data.holdout=0.3")
    more = ("data.limit=null", "data.workers=0", *PLAIN[1:], *STILL, "--seeds", 1, "--learning-rates", "1")
    document = succeed(*command, *more, "--jobs", 1, "-o", tmp_path / "comparison", "--json").document
    assert all(arm["scores"] == [100] for arm in document["arms"].values())
    assert names_in(tmp_path / "comparison" / "base") == MODELS


@pytest.mark.slow
def test_weights_of_timms_script_are_trained_in_timms_order_under_the_names_of_the_data(tmp_path: Path) -> None:
    path = data(tmp_path / "data", ["1", "10", "2"])
    state = timm.create_model("test_convnext", num_classes=3).state_dict()
    written = {"epoch": 1, "arch": "test_convnext", "state_dict": state, "version": 2}
    torch.save(written | {"args": Namespace(model="test_convnext", num_classes=3)}, tmp_path / "l.pth")
    document = trained(tmp_path / "l.pth", path, tmp_path / "run")
    assert [note for note in document["notes"] if "timm's order" in note]
    assert names_in(tmp_path / "run" / "best") == ["1", "2", "10"]
    new = trained(tmp_path / "l.pth", path, tmp_path / "point", "data.class_order=code-point")
    assert names_in(tmp_path / "point" / "best") == ["1", "10", "2"]
    assert not [note for note in new["notes"] if "timm's order" in note]
