"""Weights under the names that others gave them: a library's converter first, order and shapes only on request."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from safetensors.torch import save_file
from torch import Tensor

from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.loading.opening import OpenedModel, open_model
from spgsurgeon.loading.request import ModelRequest

State = dict[str, Tensor]


def weights(architecture: str, classes: int = 7) -> State:
    """Return the state dict of a random model of which no two tensors are alike, statistics of batch norms included."""
    torch.manual_seed(0)
    model = timm.create_model(architecture, num_classes=classes)
    state: State = model.state_dict()
    return {key: torch.rand_like(value) + 0.5 if value.is_floating_point() else value for key, value in state.items()}


def opened(path: Path, document: Any, architecture: str | None, map_keys: str | None = None) -> OpenedModel:
    torch.save(document, path)
    return open_model(ModelRequest(str(path), arch=architecture and f"timm/{architecture}", map_keys=map_keys))


def check_same(found: OpenedModel, state: State) -> None:
    own = found.module.state_dict()
    assert list(own) == list(state)
    assert all(torch.equal(own[key], value) for key, value in state.items())


def of_facebook(state: State) -> Any:
    found = {}
    for key, value in state.items():
        key = re.sub(r"^stem\.", "downsample_layers.0.", key)
        key = re.sub(r"stages\.(\d)\.downsample", r"downsample_layers.\1", key)
        key = key.replace(".blocks.", ".").replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")
        found[key.replace("head.norm", "norm").replace("head.fc", "head")] = value
    return {"model": found}


def of_dinov2(state: State) -> Any:
    return {**state, "mask_token": torch.zeros(1, 64)}


@pytest.mark.parametrize(
    ("architecture", "published"), [("test_convnext", of_facebook), ("test_vit", of_dinov2)], ids=["ConvNeXt", "DINOv2"]
)
def test_timms_own_filter_comes_first_and_is_said(
    tmp_path: Path, architecture: str, published: Callable[[State], Any]
) -> None:
    state = weights(architecture)
    found = opened(tmp_path / "weights.pth", published(state), architecture)
    check_same(found, state)
    assert found.identity.num_classes == 7
    assert [note for note in found.notes if "timm's own checkpoint filter" in note]
    assert ("mask_token" in str(found.notes)) == (published is of_dinov2)


@pytest.mark.slow
def test_microsofts_swin_keeps_its_classifier(tmp_path: Path) -> None:
    name = "swin_tiny_patch4_window7_224"
    model = timm.create_model(name, num_classes=10)
    state, published = model.state_dict(), dict[str, Tensor]()
    for key, value in state.items():
        moved = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) - 1}.downsample", key)
        published[moved.replace("head.fc.", "head.")] = value
    published["layers.0.blocks.0.attn.relative_position_index"] = torch.zeros(49, 49, dtype=torch.int64)
    published["layers.0.blocks.1.attn_mask"] = torch.zeros(4, 49, 49)
    found = opened(tmp_path / "swin.pth", {"model": published}, name)
    check_same(found, state)
    assert found.identity.num_classes == 10


def test_the_classifier_beside_mmpretrains_backbone_is_kept(tmp_path: Path) -> None:
    state = weights("test_resnet")
    named = {f"head.{key}" if key.startswith("fc.") else f"backbone.{key}": value for key, value in state.items()}
    path = tmp_path / "weights.pth"
    found = opened(path, {"meta": {}, "state_dict": named}, None)
    check_same(found, state)
    assert [note for note in found.notes if "head.fc" in note]
    document = succeed("inspect", path, "--json").document
    assert document["head"]["classes"] == 7
    assert [note for note in document["notes"] if "head.fc" in note]
    narrow = {key: value[:, :3] if key == "head.fc.weight" else value for key, value in named.items()}
    other = opened(path, {"state_dict": narrow}, None)
    assert other.identity.num_classes == 0


def under_other_names(state: State) -> State:
    names = [f"_part{place}._{key.replace('.', '_', key.count('.') - 1)}" for place, key in enumerate(state)]
    return dict(zip(names, state.values(), strict=True))


def test_by_order_is_taken_when_asked_and_all_shapes_agree(tmp_path: Path) -> None:
    state = weights("test_efficientnet")
    theirs, path = under_other_names(state), tmp_path / "weights.pth"
    with pytest.raises(ArchitectureError) as refused:
        opened(path, theirs, "test_efficientnet")
    assert "--map-keys by-order" in str(refused.value.hint)
    found = opened(path, theirs, "test_efficientnet", "by-order")
    check_same(found, state)
    assert found.identity.num_classes == 7
    assert [note for note in found.notes if "by order" in note]
    headless = {key: value for key, value in theirs.items() if "classifier" not in key}
    assert opened(path, headless, "test_efficientnet", "by-order").identity.num_classes == 0
    without_counters = {key: value for key, value in theirs.items() if not key.endswith("num_batches_tracked")}
    assert opened(path, without_counters, "test_efficientnet", "by-order").identity.num_classes == 7


def exchanged(state: State) -> State:
    """Return it with the weight and the bias of a norm, which have the same shape, in each other's place."""
    keys = list(state)
    place = next(number for number, key in enumerate(keys) if key.endswith("bn1_weight") or "bn1.weight" in key)
    keys[place], keys[place + 1] = keys[place + 1], keys[place]
    return {key: state[key] for key in keys}


def test_by_order_never_guesses(tmp_path: Path) -> None:
    state, path = weights("test_efficientnet"), tmp_path / "weights.pth"
    theirs = under_other_names(state)
    keys = list(theirs)
    one_less = {key: theirs[key] for key in keys[:-1]}
    transposed = {**theirs, keys[0]: theirs[keys[0]].transpose(0, -1)}
    for wrong in (one_less, transposed, exchanged(theirs)):
        with pytest.raises(ArchitectureError) as refused:
            opened(path, wrong, "test_efficientnet", "by-order")
        assert refused.value.code == "other-order"
    with pytest.raises(UsageError) as sorted_keys:
        opened(path, {key: theirs[key] for key in sorted(theirs)}, "test_efficientnet", "by-order")
    assert sorted_keys.value.code == "keys-without-order"
    save_file(theirs, tmp_path / "weights.safetensors")
    request = ModelRequest(str(tmp_path / "weights.safetensors"), arch="timm/test_efficientnet", map_keys="by-order")
    with pytest.raises(UsageError) as sorted_keys:
        open_model(request)
    assert sorted_keys.value.code == "keys-without-order"
    with pytest.raises(UsageError) as known:
        opened(path, state, "test_efficientnet", "by-order")
    assert known.value.code == "keys-known"


def test_commands_take_the_option(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(under_other_names(weights("test_efficientnet")), path)
    asked = (path, "--arch", "timm/test_efficientnet", "--map-keys", "by-order")
    assert succeed("inspect", *asked, "--json").document["head"]["classes"] == 7
    document = succeed("graft", *asked, "-o", tmp_path / "grafted", "--json").document
    assert [note for note in document["notes"] if "by order" in note]
    assert spgsurgeon("inspect", path, "--map-keys", "by-shape", "--json").code != 0
