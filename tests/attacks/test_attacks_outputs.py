"""Outputs that would overwrite an input, and inputs that must not become an output."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import torch
from command_line import TINY, snapshot, spgsurgeon, succeed

from spgsurgeon.errors import UsageError

RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A grafted folder, its base, and ways to them; made once, as no test may change it."""
    folder = tmp_path_factory.mktemp("shop")
    succeed("graft", *TINY, "--num-classes", 10, "-o", folder / "grafted")
    succeed("strip", folder / "grafted", "-o", folder / "base")
    succeed("strip", folder / "grafted", "-o", folder / "base.pt")
    (folder / "folder link").symlink_to("grafted")
    (folder / "base link").symlink_to("base")
    (folder / "file link.pt").symlink_to("base.pt")
    os.link(folder / "base.pt", folder / "hard link.pt")
    (folder / "proof.onnx.json").symlink_to("grafted/graft.json")
    (folder / "mine").mkdir()
    shutil.copy(RECIPES / "digits-dropout.yaml", folder / "mine" / "recipe.yaml")
    return folder


@pytest.fixture
def shop(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, as the working folder."""
    monkeypatch.chdir(folder)
    return folder


ONTO_THE_INPUT = {
    "itself": ("strip", "grafted", "-o", "grafted"),
    "itself by another way": ("strip", "grafted", "-o", "base/../grafted"),
    "through a link": ("strip", "grafted", "-o", "folder link"),
    "from a link": ("strip", "folder link", "-o", "grafted"),
    "inside": ("strip", "grafted", "-o", "grafted/deeper/base"),
    "inside, through a link": ("strip", "grafted", "-o", "folder link/base.pt"),
    "onto a file inside": ("strip", "grafted", "-o", "grafted/model.safetensors"),
    "around": ("strip", "grafted", "-o", "."),
    "the proof through a link": ("strip", "grafted", "-o", "proof.onnx"),
    "the reference": ("strip", "grafted", "-o", "base", "--reference", "base"),
    "the reference through a link": ("strip", "grafted", "-o", "base link", "--reference", "base"),
    "the base": ("graft", "base", "-o", "base"),
    "the base through a link": ("graft", "base", "-o", "base link"),
    "inside the base": ("graft", "base", "-o", "base/grafted"),
    "a file": ("graft", "base.pt", "-o", "base.pt", "--arch", "timm/test_resnet"),
    "a file through a link": ("graft", "base.pt", "-o", "file link.pt", "--arch", "timm/test_resnet"),
    "a file through a hard link": ("graft", "base.pt", "-o", "hard link.pt", "--arch", "timm/test_resnet"),
    "around a file": ("graft", "base.pt", "-o", ".", "--arch", "timm/test_resnet"),
    "a recipe's folder": ("train", "base", "--recipe", "mine/recipe.yaml", "training.device=cpu", "-o", "mine"),
}


@pytest.mark.parametrize("case", ONTO_THE_INPUT)
def test_an_output_onto_the_input_is_refused_even_with_force(case: str, shop: Path) -> None:
    before = snapshot(shop)
    outcome = spgsurgeon(*ONTO_THE_INPUT[case], "--force")
    assert outcome.code == UsageError.exit_code, outcome
    assert "overwrite the input" in outcome.err
    assert snapshot(shop) == before


def test_a_hard_link_to_a_file_of_the_input_is_replaced_and_the_input_is_not(shop: Path, tmp_path: Path) -> None:
    linked = tmp_path / "linked.safetensors"
    os.link(shop / "grafted" / "model.safetensors", linked)
    before = snapshot(shop / "grafted")
    succeed("strip", "grafted", "-o", linked, "--force")
    assert snapshot(shop / "grafted") == before
    assert not linked.samefile(shop / "grafted" / "model.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_weight_that_is_no_number_is_refused_by_name(value: float, shop: Path, tmp_path: Path) -> None:
    state = torch.load(shop / "base.pt", weights_only=True)
    state["layer1.0.bn1.running_mean"][3] = value
    torch.save(state, tmp_path / "broken.pt")
    before = snapshot(shop)
    outcome = spgsurgeon("graft", tmp_path / "broken.pt", "--arch", "timm/test_resnet", "-o", "grafted anew")
    assert outcome.code == 1
    assert "layer1.0.bn1.running_mean" in outcome.err
    assert snapshot(shop) == before


def test_what_a_killed_command_left_is_swept_by_the_next_one_that_writes_there(folder: Path, tmp_path: Path) -> None:
    for name, command in {"g": ("graft", folder / "base"), "s": ("strip", folder / "grafted")}.items():
        left, other = tmp_path / f".{name}.0123abcd.tmp", tmp_path / f".{name}2.0123abcd.tmp"
        for place in (left, other):
            place.mkdir()
            (place / "model.safetensors").touch()
        succeed(*command, "-o", tmp_path / name)
        assert not left.exists()
        assert other.exists()  # the temporary of another output


@pytest.mark.slow
def test_an_output_may_have_as_long_a_name_as_the_file_system_takes(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A temporary name beside it must not be longer; one byte more is said before anything is done."""
    monkeypatch.chdir(tmp_path)
    base, long = folder / "base", "é" * 121 + "x" * 13  # 255 bytes
    succeed("graft", base, "-o", long)
    succeed("graft", base, "-o", long, "--force")
    succeed("strip", long, "-o", f"{long[:-12]}.safetensors")
    few = ("--recipe", "digits-dropout", "training.device=cpu", "training.epochs=1", "data.limit=5")
    succeed("train", base, *few, "-o", f"in/{long}")
    succeed("train", "-o", f"in/{long}", "--resume")
    succeed("report", f"in/{long}", "-o", f"report/{long}")
    for command in (("graft", base), ("strip", long), ("train", base, *few), ("report", f"in/{long}")):
        refused = spgsurgeon(*command, "-o", f"{long}x")
        assert (refused.code, "too long" in refused.err) == (2, True), refused.err
    assert not list(tmp_path.rglob("*.tmp"))
