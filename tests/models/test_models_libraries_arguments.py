"""What a file may say of its model, and that whatever this package writes may be said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from families import DEPTH, SUPPORTED
from safetensors.torch import save_file
from timm.models import get_pretrained_cfg
from timm.models._hub import save_config_for_hf

from spgsurgeon.errors import ArchitectureError, DamagedFileError, UnsafeInputError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models.libraries import timm_library
from spgsurgeon.models.libraries.arguments import checked_arguments, checked_description
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import LIBRARIES, library
from spgsurgeon.models.libraries.timm_library import TimmLibrary

SOURCES = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source", "custom_load"}

# As published on the Hub by those who train vision transformers of their own.
PUBLISHED = [
    {"img_size": 224, "init_values": 1e-05, "num_classes": 0, "dynamic_img_size": True},
    {"img_size": 224, "patch_size": 14, "depth": 24, "num_heads": 24, "embed_dim": 1536, "mlp_ratio": 5.33334},
    {"no_embed_class": True, "reg_tokens": 8, "act_layer": "silu", "class_token": False, "global_pool": "avg"},
    {"drop_rate": 0.1, "drop_path_rate": 0, "qkv_bias": True, "pos_embed": "none", "final_norm": False},
    {"depths": [2, 2, 18, 2], "window_size": 12, "embed_dim": 192, "num_heads": (6, 12, 24, 48), "norm_layer": None},
]


@pytest.mark.parametrize("args", PUBLISHED, ids=str)
def test_what_shapes_a_model_may_be_said(args):
    assert checked_arguments("timm", args) == {name: value for name, value in args.items() if value is not None}


@pytest.mark.parametrize("name", ["pretrained", "cache_dir", "checkpoint_path", "norm_layer", "url", "weights", ""])
@pytest.mark.parametrize("owner", [*LIBRARIES, "another"])
def test_what_is_not_listed_is_refused_by_name_and_no_identity_has_it(name, owner):
    with pytest.raises(UnsafeInputError) as caught:
        Identity(owner, "resnet18", 10, {name: "x", "image_size": 10})
    assert name in caught.value.details["unsafe"]
    assert "pretrained" not in caught.value.details["allowed"]
    with pytest.raises(UnsafeInputError):
        replace(Identity(owner, "resnet18", 10), model_args={name: True})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("img_size", value) for value in (0, -1, 4097, 2**70, True, "224", 224.0, [224], [1, 2, 3], {}, [224, "a"])],
        *[("depths", value) for value in ([3000, 1], [1] * 65, "2222", -1, [[[1]]], [None])],
        *[("drop_rate", value) for value in (float("nan"), float("inf"), -0.1, 1.5, "0.1", True)],
        *[("global_pool", value) for value in ("evil", "AVG", 3, ["avg"])],
        *[("class_token", value) for value in (1, "true", [])],
        *[("init_values", value) for value in (-1.0, 1e9, "1e-5")],
    ],
    ids=str,
)
def test_a_value_of_another_type_or_out_of_bounds_is_damage_and_named(name, value):
    with pytest.raises(DamagedFileError, match=name) as caught:
        Identity("timm", "test_vit", 10, {name: value})
    assert len(caught.value.message) < 600


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *[("input_size", value) for value in ([3, 224], [3, 224, 10**6], [0, 224, 224], 224, "3x224x224")],
        *[("mean", value) for value in ([], ["a"], [float("nan")], [float("inf")] * 3, 0.5)],
        *[("std", value) for value in ([0.1, 0.1, 0.0], [-1.0], [float("nan")])],
        *[("crop_pct", value) for value in (0, 1e-9, -1, 3, float("nan"), "0.9")],
        *[("interpolation", "evil"), ("crop_mode", "evil"), ("num_classes", 2**40), ("num_classes", "ten")],
        *[("label_names", 3), ("label_names", [3]), ("first_conv", {}), ("fixed_input_size", "yes")],
    ],
    ids=str,
)
def test_a_description_has_types_and_bounds(key, value):
    with pytest.raises(DamagedFileError, match=key):
        Identity("timm", "test_vit", 10, pretrained_cfg={key: value})


def test_a_description_says_nothing_of_where_weights_are():
    given = {"url": "x", "file": 3, "state_dict": {}, "hf_hub_id": [], "custom_load": True, "crop_pct": 0.9, "evil": 1}
    assert Identity("timm", "test_vit", 10, pretrained_cfg=given).pretrained_cfg == {"crop_pct": 0.9}


def test_every_description_of_timm_is_kept_but_for_the_source():
    for name in timm.list_models(include_tags=True):
        cfg = json.loads(json.dumps(get_pretrained_cfg(name).to_dict()))
        kept = {key: value for key, value in cfg.items() if key not in SOURCES | {"label_offset"} and value is not None}
        assert checked_description(cfg) == kept, name


@pytest.mark.parametrize("family", [*SUPPORTED, *DEPTH], ids=lambda family: family.name)
def test_what_is_written_of_a_family_may_be_read(family):
    check_round_trip(family.library, family.architecture, family.args)


@pytest.mark.slow
@pytest.mark.parametrize("owner", LIBRARIES)
def test_what_is_written_of_an_architecture_may_be_read(owner):
    for architecture in library(owner).architectures()[::5]:  # of all, it takes minutes
        check_round_trip(owner, architecture)


def check_round_trip(owner: str, architecture: str, args: dict[str, Any] | None = None) -> None:
    """Write what is written of a new model and read it; on the meta device if the library can build there."""
    known, identity = library(owner), Identity(owner, architecture, 7, args or {})
    try:
        with torch.device("meta"):
            module = known.build(identity)
    except ArchitectureError:
        module = known.build(identity)
    written = json.loads(json.dumps(known.config(identity, module, None)))
    again = known.identity_from_config(written)
    assert (again.architecture, again.num_classes) == (architecture, written["num_classes"])
    said = {name: value for name, value in written.get("model_args", {}).items() if name != "num_classes"}
    assert again.model_args == said, architecture
    assert not SOURCES & (again.pretrained_cfg or {}).keys()


@pytest.mark.parametrize(
    ("architecture", "args"),
    [
        ("test_vit", {"img_size": 96, "patch_size": 8, "depth": 2, "global_pool": "avg", "class_token": False}),
        ("test_vit", {"reg_tokens": 4, "init_values": 1e-5, "no_embed_class": True, "img_size": (64, 96)}),
        ("test_vit", {"in_chans": 1, "drop_path_rate": 0.1, "act_layer": "silu", "embed_dim": 48, "num_heads": 3}),
        ("test_resnet", {"layers": [1, 1, 2, 1], "in_chans": 4, "drop_rate": 0.2}),
        ("test_convnext", {"depths": [1, 1, 1, 2], "dims": [8, 16, 24, 32]}),
    ],
)
def test_a_folder_that_timm_wrote_of_a_model_built_otherwise_opens_as_that_model(architecture, args, tmp_path):
    trained = timm.create_model(architecture, num_classes=5, **args).eval()
    save_file(trained.state_dict(), tmp_path / "model.safetensors")
    save_config_for_hf(trained, tmp_path / "config.json", model_args=args)
    opened = open_model(ModelRequest(str(tmp_path)))
    images = torch.randn(2, *opened.preprocessing.input_size)
    assert torch.equal(opened.module(images), trained(images))


def test_the_config_of_a_repository_is_asked_for_no_more_than_any_other(monkeypatch):
    made = []
    monkeypatch.setattr(timm, "create_model", lambda name, **args: made.append((name, args)) or pytest.fail("built"))
    said = {"cfg": {}, "architecture": "test_resnet", "args": {}}
    monkeypatch.setattr(timm_library, "load_model_config_from_hf", lambda repository: tuple(said.values()))
    for change, error in (
        ({"args": {"pretrained": False, "cache_dir": "/victim"}}, UnsafeInputError),
        ({"args": {"img_size": 10**9}}, DamagedFileError),
        ({"cfg": {"input_size": [3, 10**9, 1]}}, DamagedFileError),
        ({"architecture": "local-dir:/elsewhere"}, ArchitectureError),
    ):
        monkeypatch.setattr(timm_library, "load_model_config_from_hf", lambda _, c=change: tuple((said | c).values()))
        with pytest.raises(error, match=r"hf-hub:a/b|local-dir"):
            TimmLibrary().pretrained("hf-hub:a/b", None)
    assert made == []


def test_the_weights_of_a_repository_are_built_with_its_arguments(monkeypatch):
    trained = timm.create_model("test_vit", num_classes=5, img_size=96, depth=2).eval()
    said = {
        "url": "x",
        "hf_hub_id": "a/evil",
        "custom_load": True,
        "crop_pct": 0.5,
        "num_classes": 5,
        "first_conv": None,
    }
    asked = []
    monkeypatch.setattr(
        timm_library,
        "load_model_config_from_hf",
        lambda repository: (said, "test_vit", {"img_size": 96, "depth": 2, "num_classes": 5}),
    )
    monkeypatch.setattr(
        "timm.models._builder.load_state_dict_from_hf",
        lambda repository, *_, **__: asked.append(repository) or dict(trained.state_dict()),
    )
    module, identity = TimmLibrary().pretrained("hf-hub:a/b", None)
    images = torch.randn(2, 3, 96, 96)
    assert torch.equal(module.eval()(images), trained(images))
    assert (identity.architecture, identity.num_classes) == ("test_vit", 5)
    assert identity.model_args == {"img_size": 96, "depth": 2}
    assert identity.pretrained_cfg["crop_pct"] == 0.5
    assert not SOURCES & identity.pretrained_cfg.keys()
    assert asked == ["a/b"]
