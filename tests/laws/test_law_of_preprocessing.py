"""Evaluation prepares an image as the library that the weights come from does, for every pretrained configuration."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.models import get_pretrained_cfg
from timm.models._hub import save_for_hf
from torch import Tensor, nn
from torchvision.transforms._presets import ImageClassification

from spgsurgeon.data.transforms.augmentation import evaluation_transform
from spgsurgeon.data.transforms.joint import joint_evaluation_transform
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.models.preprocessing import Preprocessing

# (height, width): square, wide, tall, with odd edges, smaller than any model's input
ODD = (97, 97), (60, 301), (333, 41), (151, 100), (7, 5)


@cache
def odd_images() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ODD]


def same(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two normalised images have the same pixels: another one differs by 4e-3, a rounding by 1e-6 at most."""
    rounding = 2e-6 * theirs.abs().max().clamp(min=1)
    return ours.shape == theirs.shape and bool((ours - theirs).abs().max() < rounding)


class Described(nn.Module):
    """A model that is nothing but the description of its weights, which is all that preprocessing goes by."""

    def __init__(self, pretrained_cfg: dict[str, Any]) -> None:
        super().__init__()
        self.pretrained_cfg = pretrained_cfg


def configurations() -> Iterator[tuple[str, dict[str, Any], Preprocessing]]:
    """Each of timm's pretrained weights: their name, timm's data configuration, and ours."""
    for name in timm.list_pretrained():
        cfg = get_pretrained_cfg(name)
        assert cfg is not None
        module = Described(cfg.to_dict())
        identity = Identity("timm", name.partition(".")[0], cfg.num_classes, pretrained_cfg=cfg.to_dict())
        yield name, resolve_model_data_config(module), library("timm").preprocessing(identity, module)


def test_of_all_weights_of_timm() -> None:
    distinct = {(repr(theirs), ours): (name, theirs) for name, theirs, ours in configurations()}
    modes = {ours.crop_mode for _, ours in distinct}
    assert modes == {"center", "squash", "border"}
    for (_, ours), (name, theirs) in distinct.items():
        mine, timms = evaluation_transform(ours), create_transform(**theirs)
        for image in odd_images():
            assert same(mine(image), timms(image)), (name, image.size, ours)


@pytest.mark.parametrize("size", [117, 234, 468, 936])
def test_edges_are_rounded_as_timm_does(size: int) -> None:
    """Each divided by 0.936 is a whole number but for rounding."""
    ours = Preprocessing((3, size, size), crop_pct=0.936)
    theirs = create_transform((3, size, size), crop_pct=0.936)
    assert same(evaluation_transform(ours)(odd_images()[1]), theirs(odd_images()[1]))


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_a_folder_keeps_how_its_images_are_cropped(mode: str, tmp_path) -> None:
    model = timm.create_model("test_resnet", num_classes=3, pretrained_cfg_overlay={"crop_mode": mode})
    save_for_hf(model, str(tmp_path))
    opened = open_model(ModelRequest(str(tmp_path)))
    assert opened.config()["pretrained_cfg"]["crop_mode"] == mode
    theirs = create_transform(**resolve_model_data_config(model))
    for image in odd_images():
        assert same(evaluation_transform(opened.preprocessing)(image), theirs(image))


def test_of_the_size_that_weights_are_tested_at() -> None:
    """timm's validation script takes it where there is one; `eval` says so, and takes it when asked."""
    sized = [name for name in timm.list_pretrained("resnet*") if get_pretrained_cfg(name).test_input_size]
    assert len(sized) > 5
    for name in sized:
        cfg = get_pretrained_cfg(name).to_dict()
        ours = library("timm").preprocessing(Identity("timm", name.partition(".")[0], 1000), Described(cfg))
        tested = ours.at_test_size()
        assert tested is not None
        theirs = create_transform(**resolve_model_data_config(Described(cfg), use_test_size=True))
        assert same(evaluation_transform(tested)(odd_images()[1]), theirs(odd_images()[1])), name


def test_of_a_folder_that_timm_before_0_8_wrote(tmp_path) -> None:
    """Its config.json is flat: what describes the weights stands beside the architecture."""
    torch.save(timm.create_model("test_resnet", num_classes=3).state_dict(), tmp_path / "pytorch_model.bin")
    said = {"input_size": [3, 96, 96], "crop_pct": 1.0, "interpolation": "nearest", "mean": [0, 0, 0], "std": [1, 1, 1]}
    beside = {"architecture": "test_resnet", "num_classes": 3, "num_features": 96, "url": ""}
    (tmp_path / "config.json").write_text(json.dumps(beside | said | {"labels": ["cat", "dog", "owl"]}))
    theirs = resolve_model_data_config(timm.create_model(f"local-dir:{tmp_path}", pretrained=True))
    opened = open_model(ModelRequest(str(tmp_path)))
    assert list(opened.preprocessing.input_size) == theirs["input_size"] == [3, 96, 96]
    assert opened.label_names == ["cat", "dog", "owl"]
    for image in odd_images():
        assert same(evaluation_transform(opened.preprocessing)(image), create_transform(**theirs)(image))


@pytest.mark.parametrize(("name", "resize", "crop"), [("resnet18", 128, 112), ("efficientnet_v2_l", 187, 123)])
def test_of_weights_of_torchvisions_training_script(name: str, resize: int, crop: int, tmp_path) -> None:
    """The script takes ImageNet's mean whatever the model; the preset of the second one has 0.5."""
    said = {"val_resize_size": resize, "val_crop_size": crop, "interpolation": "bicubic", "backend": "PIL"}
    args = Namespace(model=name, test_only=False, print_freq=10, output_dir=".", train_crop_size=96, **said)
    model = torchvision.models.get_model(name, num_classes=2)
    torch.save({"model": model.state_dict(), "optimizer": {}, "epoch": 90, "args": args}, tmp_path / "model.pth")
    preset = ImageClassification(
        crop_size=crop, resize_size=resize, interpolation=torchvision.transforms.InterpolationMode.BICUBIC
    )
    opened = open_model(ModelRequest(str(tmp_path / "model.pth")))
    for image in odd_images():
        assert same(evaluation_transform(opened.preprocessing)(image), preset(image))


def test_of_weights_of_timms_training_script(tmp_path) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    args = Namespace(model="test_resnet", num_classes=3, crop_mode="squash", crop_pct=0.9)
    document = {"epoch": 1, "arch": "test_resnet", "state_dict": model.state_dict(), "version": 2, "args": args}
    torch.save(document, tmp_path / "last.pth.tar")
    theirs = resolve_model_data_config(model, args=vars(args))
    opened = open_model(ModelRequest(str(tmp_path / "last.pth.tar")))
    for image in odd_images():
        assert same(evaluation_transform(opened.preprocessing)(image), create_transform(**theirs)(image))


def test_images_that_are_kept_differ_by_the_colour_around_them() -> None:
    one, other = (Preprocessing(mean=(mean,) * 3, crop_mode="border") for mean in (0.0, 0.5))
    assert evaluation_transform(one).fixed_key() != evaluation_transform(other).fixed_key()


def test_of_all_weights_of_torchvision() -> None:
    distinct = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        for weights in torchvision.models.get_model_weights(name):
            identity = library("torchvision").identity_from_checkpoint(f"{name}.{weights.name}", {})
            ours = library("torchvision").preprocessing(identity, nn.Identity())
            distinct.setdefault((repr(weights.transforms()), ours), weights)
    assert len(distinct) > 5
    for (_, ours), weights in distinct.items():
        for image in odd_images():
            assert same(evaluation_transform(ours)(image), weights.transforms()(image)), (weights, image.size)


@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models.segmentation))
def test_of_torchvisions_segmentation_weights(name: str) -> None:
    weights = torchvision.models.get_model_weights(name).DEFAULT
    identity = library("torchvision").identity_from_checkpoint(f"{name}.{weights.name}", {})
    ours = joint_evaluation_transform(library("torchvision").preprocessing(identity, nn.Identity()))
    image = odd_images()[3]
    found, _ = ours(image, torch.zeros(image.height, image.width, dtype=torch.int64))
    assert same(found, weights.transforms()(image))
