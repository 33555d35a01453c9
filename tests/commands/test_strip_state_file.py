"""`strip` of a file with the state dict of a grafted model, as a loop of one's own saves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import spgsurgeon as package

Save = Callable[[dict[str, Tensor], Path], None]
CLASSES = 10


def as_lightning_does(state: dict[str, Tensor], path: Path) -> None:
    held = {f"model.{key}": value for key, value in state.items()}
    torch.save({"state_dict": held, "epoch": 3, "pytorch-lightning_version": "2.5.0"}, path)


def compiled(state: dict[str, Tensor], path: Path) -> None:
    torch.save({f"_orig_mod.{key}": value for key, value in state.items()}, path)


@pytest.fixture(scope="module")
def base() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=CLASSES)


@pytest.mark.parametrize("save", [torch.save, save_file, as_lightning_does, compiled])
@pytest.mark.parametrize("trp", [{"trp": "dropout"}, {"trp": "depth"}, {"trp": "dropout", "projection": False}])
def test_the_base_comes_back_bit_for_bit_and_says_what_it_is(
    base: nn.Module, save: Save, trp: dict[str, object], tmp_path: Path
) -> None:
    expected = {key: value.clone() for key, value in base.state_dict().items()}
    grafted = package.graft(base, replicas=2, **trp)
    file = tmp_path / "mine.ckpt"
    save(grafted.state_dict(), file)
    package.strip(grafted)
    document = succeed("strip", file, "-o", tmp_path / "out", "--json").document
    assert document["proof"]["layout_is_the_architectures"]
    assert document["proof"]["eval_outputs_equal"]
    found = load_file(tmp_path / "out" / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    card = (tmp_path / "out" / "README.md").read_text()
    assert "not retrained" not in card  # which nobody knows
    assert "| base | not recorded |" in card
    assert succeed("inspect", tmp_path / "out", "--json").document["architecture"] == "test_resnet"


def test_inspect_sends_such_a_file_to_strip(base: nn.Module, tmp_path: Path) -> None:
    grafted = package.graft(base)
    torch.save(grafted.state_dict(), tmp_path / "mine.pt")
    package.strip(grafted)
    document = succeed("inspect", tmp_path / "mine.pt", "--json").document
    assert document["next"] == f"spgsurgeon strip {tmp_path / 'mine.pt'} -o better/"


def test_a_file_without_replicas_is_refused(base: nn.Module, tmp_path: Path) -> None:
    torch.save(base.state_dict(), tmp_path / "mine.pt")
    outcome = spgsurgeon("strip", tmp_path / "mine.pt", "-o", tmp_path / "out", "--json")
    assert (outcome.code, outcome.document["error"]["code"]) == (2, "not-grafted")
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_nobodys_is_sent_to_python(tmp_path: Path) -> None:
    mine = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
    grafted = package.graft(mine, site="3")
    torch.save(grafted.state_dict(), tmp_path / "mine.pt")
    outcome = spgsurgeon("strip", tmp_path / "mine.pt", "-o", tmp_path / "out", "--json")
    assert outcome.code == 5
    assert "spgsurgeon.strip(state_dict)" in outcome.document["error"]["hint"]


def test_an_architecture_is_said_where_several_fit(tmp_path: Path) -> None:
    base = timm.create_model("resnet18", num_classes=3)
    grafted = package.graft(base, replicas=1)
    torch.save(grafted.state_dict(), tmp_path / "mine.pt")
    package.strip(grafted)
    outcome = spgsurgeon("strip", tmp_path / "mine.pt", "-o", tmp_path / "out", "--json")
    assert outcome.code == 5
    assert "--arch" in outcome.document["error"]["hint"]
    succeed("strip", tmp_path / "mine.pt", "-o", tmp_path / "out", "--arch", "timm/resnet18")
    assert load_file(tmp_path / "out" / "model.safetensors").keys() == base.state_dict().keys()
