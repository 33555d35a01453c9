"""A weights file is what the config.json beside it says, or the one that it carries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors import safe_open
from tiny_texts import reader

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.errors import DamagedFileError, UnsafeInputError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

NAMES = ["ant", "bee", "cat"]
SAID = {"mean": [0.1, 0.2, 0.3], "crop_pct": 0.7, "interpolation": "bilinear"}


@pytest.fixture(scope="module")
def stripped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights in both formats; nothing about them is as their architecture has it by default."""
    folder = tmp_path_factory.mktemp("described")
    base = folder / "base"
    module = timm.create_model("test_resnet", num_classes=len(NAMES))
    described = {"pretrained_cfg": SAID, "label_names": NAMES}
    timm.models.save_for_hf(module, base, model_config=described, safe_serialization=True)
    graft_folder(str(base), folder / "grafted")
    strip_folder(folder / "grafted", folder / "out", exports=["safetensors", "pt"])
    return folder / "out"


def opened(path: Path, **asked: Any) -> Any:
    return open_model(ModelRequest(str(path), **asked))


@pytest.mark.parametrize("name", ["model.safetensors", "model.pt"])
@pytest.mark.parametrize("alone", [False, True])
def test_a_file_is_prepared_and_named_as_its_folder_is(stripped: Path, tmp_path: Path, name: str, alone: bool) -> None:
    file = stripped / name
    if alone:
        file = Path(shutil.copy(file, tmp_path / f"moved{file.suffix}"))
    found, folder = opened(file), opened(stripped)
    assert (found.identity, found.label_names) == (folder.identity, NAMES)
    assert found.preprocessing == folder.preprocessing
    assert found.preprocessing.crop_pct == SAID["crop_pct"]
    said = "the file says itself what it is" if alone else "the config.json beside it says what it is"
    assert f"{said}: timm/test_resnet" in found.notes
    document = inspect(file)
    assert (document["architecture"], f"{said}: timm/test_resnet" in document["notes"]) == ("test_resnet", True)


def test_what_a_file_carries_is_no_part_of_its_weights(stripped: Path) -> None:
    loaded = torch.load(stripped / "model.pt", weights_only=True)
    assert loaded.keys() == timm.create_model("test_resnet").state_dict().keys()
    with safe_open(stripped / "model.safetensors", "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["config.json"])["label_names"] == NAMES
    assert inspect(stripped / "model.pt")["content_hash"] == inspect(stripped)["content_hash"]


def test_the_same_weights_give_the_same_bytes(stripped: Path, tmp_path: Path) -> None:
    for number in range(3):
        strip_folder(stripped.parent / "grafted", tmp_path / str(number), exports=["safetensors", "pt"])
    for name in ("model.safetensors", "model.pt"):
        assert len({(tmp_path / str(number) / name).read_bytes() for number in range(3)}) == 1


def test_what_somebody_says_goes_before_what_lies_beside(stripped: Path) -> None:
    found = opened(stripped / "model.safetensors", arch="timm/test_resnet")
    assert "its config.json was not read, as --arch says what it is" in found.notes
    assert (found.label_names, found.preprocessing.crop_pct) == (None, 0.95)


def test_a_config_of_something_else_is_passed_over(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "model.pth")
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "ours", "lr": 0.1}))
    assert opened(tmp_path / "model.pth").identity.architecture == "test_resnet"


def test_a_file_beside_the_config_of_another_model_is_what_it_carries(stripped: Path, tmp_path: Path) -> None:
    shutil.copy(stripped / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"architecture": "resnet18", "num_classes": 3}))
    assert opened(tmp_path / "model.safetensors").identity.architecture == "test_resnet"


def test_a_config_beside_or_inside_is_data(stripped: Path, tmp_path: Path) -> None:
    tensors = timm.create_model("test_resnet", num_classes=3).state_dict()
    torch.save(tensors, tmp_path / "model.pth")
    config = json.loads((stripped / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_args": {"checkpoint_path": "/etc/passwd"}}))
    with pytest.raises(UnsafeInputError, match="checkpoint_path"):
        opened(tmp_path / "model.pth")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DamagedFileError, match=r"config\.json"):
        opened(tmp_path / "model.pth")


def test_an_output_may_lie_beside_a_file(stripped: Path, tmp_path: Path) -> None:
    shutil.copytree(stripped, tmp_path / "here")
    graft_folder(str(tmp_path / "here" / "model.safetensors"), tmp_path / "here" / "grafted")
    assert (tmp_path / "here" / "grafted" / "graft.json").is_file()


def test_a_file_of_texts_has_the_tokenizer_that_lies_beside_it(tmp_path: Path) -> None:
    graft_folder(str(reader(tmp_path / "base")), tmp_path / "grafted")
    strip_folder(tmp_path / "grafted", tmp_path / "out")
    found = opened(tmp_path / "out" / "model.safetensors")
    assert found.preprocessing == opened(tmp_path / "out").preprocessing
    alone = opened(shutil.copy(tmp_path / "out" / "model.safetensors", tmp_path / "alone.safetensors"))
    assert alone.identity == found.identity
    with pytest.raises(UsageError) as caught:
        _ = alone.preprocessing
    assert caught.value.code == "missing-tokenizer"
