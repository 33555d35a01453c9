"""Bare weights of a vision transformer for images of another size: what is inferred is said, a rectangle is given."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
import torchvision
from command_line import spgsurgeon, succeed

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.errors import ArchitectureError, SurgeonError, UsageError
from spgsurgeon.loading.opened import OpenedModel
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

ARCH = "timm/vit_tiny_patch16_224"


def weights(folder: Path, size: tuple[int, int]) -> str:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", num_classes=7, img_size=size, depth=12)
    torch.save(model.state_dict(), folder / "spectrograms.pth")
    return str(folder / "spectrograms.pth")


def opened(path: str, size: tuple[int, int] | None = None) -> OpenedModel:
    return open_model(ModelRequest(path, arch=ARCH, image_size=size))


def test_an_inferred_size_is_said(tmp_path: Path) -> None:
    model = opened(weights(tmp_path, (128, 512)))
    assert model.preprocessing.input_size == (3, 256, 256)
    assert [note for note in model.notes if "256 x 256" in note and "--image-size" in note]
    assert opened(weights(tmp_path, (224, 224))).notes == []


def test_a_rectangle_is_opened_as_it_was_built(tmp_path: Path) -> None:
    path = weights(tmp_path, (128, 512))
    model = opened(path, (128, 512))
    assert (model.preprocessing.input_size, model.notes) == ((3, 128, 512), [])
    assert model.module(torch.zeros(1, 3, 128, 512)).shape == (1, 7)
    graft_folder(path, tmp_path / "grafted", arch=ARCH, image_size=(128, 512))
    again = open_model(ModelRequest(str(tmp_path / "grafted")))
    assert (again.preprocessing.input_size, again.notes) == ((3, 128, 512), [])


def test_inspect_and_graft_take_it_on_the_command_line(tmp_path: Path) -> None:
    path = weights(tmp_path, (128, 512))
    document = inspect(path, arch=ARCH, image_size=(128, 512))
    assert document["notes"] == []
    assert "--image-size 128x512" in document["next"]
    succeed("graft", path, "--arch", ARCH, "--image-size", "128x512", "-o", tmp_path / "grafted")
    assert open_model(ModelRequest(str(tmp_path / "grafted"))).preprocessing.input_size == (3, 128, 512)
    assert spgsurgeon("inspect", path, "--arch", ARCH, "--image-size", "128by512").code == 2


def test_positions_that_make_no_square_ask_for_the_size(tmp_path: Path) -> None:
    path = weights(tmp_path, (96, 512))
    with pytest.raises(ArchitectureError, match="192 positions") as refused:
        opened(path)
    assert (refused.value.code, "--image-size" in str(refused.value.hint)) == ("image-size-unknown", True)
    assert opened(path, (96, 512)).preprocessing.input_size == (3, 96, 512)


def test_a_size_that_the_weights_are_not_of_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SurgeonError, match="pos_embed"):
        opened(weights(tmp_path, (128, 512)), (128, 256))


def test_what_says_its_own_size_takes_none(tmp_path: Path) -> None:
    graft_folder(weights(tmp_path, (128, 512)), tmp_path / "grafted", arch=ARCH, image_size=(128, 512))
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    for model, arch in (
        (str(tmp_path / "grafted"), None),
        ("timm/test_vit", None),
        (str(tmp_path / "resnet18.pth"), "torchvision/resnet18"),
    ):
        with pytest.raises(UsageError) as refused:
            open_model(ModelRequest(model, arch=arch, image_size=(96, 96)))
        assert refused.value.code == "image-size-known"
