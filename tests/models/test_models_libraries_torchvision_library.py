"""torchvision: identities, presets, config.json."""

import json
from dataclasses import replace

import pytest
import torch
import torchvision

from spgsurgeon.errors import ArchitectureError, SurgeonError
from spgsurgeon.models.libraries.building import build
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library

TORCHVISION = library("torchvision")
RESNET = Identity("torchvision", "resnet18", 7)


def test_preprocessing_is_that_of_the_default_weights():
    weights = torchvision.models.EfficientNet_V2_S_Weights.DEFAULT
    identity = Identity("torchvision", "efficientnet_v2_s", 7)
    found = TORCHVISION.preprocessing(identity, build(identity))
    assert found.input_size == (3, 384, 384)
    assert found.crop_pct == 1.0
    assert found.mean == tuple(weights.transforms().mean)
    assert found.interpolation == "bilinear"


def test_pictures_have_the_size_that_the_model_was_built_for():
    identity = Identity("torchvision", "vit_b_32", 7, {"image_size": 64})
    assert TORCHVISION.preprocessing(identity, build(identity)).input_size == (3, 64, 64)
    assert TORCHVISION.args_from_tensors(RESNET, build(identity).state_dict()) == {"image_size": 64}


def test_a_vision_transformer_of_other_weights_is_built_for_their_size(monkeypatch):
    weights = torchvision.models.ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1
    theirs = torchvision.models.vit_b_16(image_size=384)
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *_, **__: theirs.state_dict())
    module, identity = TORCHVISION.pretrained("vit_b_16", weights.name)
    assert identity.model_args == {"image_size": 384}
    assert TORCHVISION.preprocessing(identity, module).input_size == (3, 384, 384)


@pytest.mark.parametrize(("tag", "resize"), [("IMAGENET1K_V1", 256), ("IMAGENET1K_V2", 232)])
def test_preprocessing_follows_the_weights_that_training_started_from(tag, resize):
    identity = TORCHVISION.identity_from_checkpoint(f"resnet50.{tag}", {})
    found = TORCHVISION.preprocessing(identity, torch.nn.Identity())
    assert round(found.input_size[1] / found.crop_pct) == resize


def test_config_and_identity_are_inverse():
    identity = Identity("torchvision", "googlenet", 7, {"aux_logits": False})
    config = json.loads(json.dumps(TORCHVISION.config(identity, build(identity), ["a", "b"])))
    again = TORCHVISION.identity_from_config(config)
    assert config["label_names"] == ["a", "b"]
    assert replace(again, pretrained_cfg=None) == identity
    assert TORCHVISION.preprocessing(again, build(again)) == TORCHVISION.preprocessing(identity, build(identity))
    assert list(build(again).state_dict()) == list(build(identity).state_dict())


@pytest.mark.parametrize(
    ("architecture", "expected"),
    [
        ("googlenet", {"transform_input": True, "aux_logits": False}),
        ("inception_v3", {"transform_input": True}),
    ],
)
def test_pretrained_models_are_what_torchvision_itself_makes_of_the_weights(architecture, expected, monkeypatch):
    downloaded = torchvision.models.get_model(architecture, weights=None, init_weights=False).state_dict()
    for place in (torch.hub, torchvision.models._api):
        monkeypatch.setattr(place, "load_state_dict_from_url", lambda *_, **__: downloaded)
    theirs = torchvision.models.get_model(architecture, weights="DEFAULT").eval()
    module, identity = TORCHVISION.pretrained(architecture, None)
    assert identity.model_args == expected
    assert list(module.state_dict()) == list(theirs.state_dict())
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    assert torch.equal(module.eval()(images), theirs(images))
    assert TORCHVISION.identity_from_checkpoint(f"{architecture}.IMAGENET1K_V1", {}).model_args == {
        "transform_input": True
    }


def test_unknown_weights_are_refused_with_those_there_are():
    with pytest.raises(ArchitectureError, match="it has IMAGENET1K_V1, IMAGENET1K_V2") as caught:
        TORCHVISION.pretrained("resnet50", "a1_in1k")
    assert "no weights 'a1_in1k' for resnet50" in caught.value.message


@pytest.mark.parametrize(
    "ask",
    [
        lambda: TORCHVISION.pretrained("resnet19", None),
        lambda: TORCHVISION.build(replace(RESNET, architecture="resnet19")),
        lambda: TORCHVISION.identity_from_config({"architecture": "resnet19"}),
    ],
)
def test_an_unknown_architecture_is_refused_with_near_ones(ask):
    with pytest.raises(ArchitectureError, match="'resnet19'") as caught:
        ask()
    assert "resnet18" in caught.value.hint


@pytest.mark.parametrize("args", [{"image_size": 64}, {"aux_logits": False}])
def test_arguments_that_do_not_fit_are_refused(args):
    with pytest.raises(ArchitectureError, match="torchvision can't build resnet18: "):
        build(replace(RESNET, model_args=args))


def test_weights_that_can_not_be_had_are_said_to_be_missing(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(SurgeonError, match="not in the cache and could not be downloaded: no route to host") as caught:
        TORCHVISION.pretrained("resnet18", None)
    assert "--random-weights" in caught.value.hint


def test_pretrained_weights_are_loaded_as_tensors_only_and_against_their_hash(monkeypatch):
    asked = {}
    state = torchvision.models.get_model("shufflenet_v2_x0_5", weights=None).state_dict()

    def download(url, **options):
        asked.update(options, url=url)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    module, identity = TORCHVISION.pretrained("shufflenet_v2_x0_5", "IMAGENET1K_V1")
    assert asked["weights_only"] is True
    assert asked["check_hash"] is True
    assert identity.num_classes == 1000
    assert identity.pretrained_cfg["tag"] == "IMAGENET1K_V1"
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())


def test_segmentation_models_are_built_as_their_published_weights_are(monkeypatch):
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", _refuse)  # of the backbone neither
    module = build(Identity("torchvision", "deeplabv3_mobilenet_v3_large", 5))
    images = torch.rand(2, 3, 32, 48)
    assert {name: list(output.shape) for name, output in module(images).items()} == {
        "out": [2, 5, 32, 48],
        "aux": [2, 5, 32, 48],
    }
    without = build(Identity("torchvision", "deeplabv3_mobilenet_v3_large", 5, {"aux_loss": False}))
    assert (
        list(without(images)) == list(build(Identity("torchvision", "lraspp_mobilenet_v3_large", 5))(images)) == ["out"]
    )


def _refuse(*args, **options):
    raise AssertionError("nothing may be downloaded")


@pytest.mark.parametrize("architecture", ["fcn_resnet50", "lraspp_mobilenet_v3_large"])
def test_what_torchvision_would_silently_drop_is_refused(architecture):
    with pytest.raises(ArchitectureError, match="unexpected arguments image_size"):
        build(Identity("torchvision", architecture, 5, {"image_size": 64}))


def test_pretrained_segmentation_weights_come_with_their_preset_and_the_names_of_their_classes(monkeypatch):
    name, tag = "deeplabv3_mobilenet_v3_large", "COCO_WITH_VOC_LABELS_V1"
    state = build(Identity("torchvision", name, 21)).state_dict()
    asked = {}

    def download(url, **options):
        asked.update(options)
        return state

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", download)
    module, identity = TORCHVISION.pretrained(name, tag)
    assert (asked["weights_only"], asked["check_hash"]) == (True, True)
    assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
    assert (identity.num_classes, identity.pretrained_cfg["tag"]) == (21, tag)
    config = json.loads(json.dumps(TORCHVISION.config(identity, module, None)))
    assert config["label_names"][:3] == ["__background__", "aeroplane", "bicycle"]
    assert len(config["label_names"]) == 21
    assert TORCHVISION.identity_from_config(config) == identity
    found = TORCHVISION.preprocessing(identity, module)
    assert (found.input_size, found.crop_pct, found.interpolation) == ((3, 520, 520), 1.0, "bilinear")
    assert found == TORCHVISION.preprocessing(Identity("torchvision", name, 21), module)


def test_the_task_is_told_by_the_name():
    tasks = {name: TORCHVISION.task(name) for name in ("resnet18", "fcn_resnet50")}
    assert tasks == {"resnet18": "classification", "fcn_resnet50": "segmentation"}
    assert TORCHVISION.default_classes("fcn_resnet50") == 21
    assert library("timm").task("resnet18") == "classification"


def test_a_training_checkpoint_settles_no_more_than_the_classes():
    says = {"num_classes": 5, "in_chans": 1, "img_size": 64, "model_kwargs": {"depth": 3}}
    assert TORCHVISION.identity_from_checkpoint("resnet18", says) == Identity("torchvision", "resnet18", 5)
    assert TORCHVISION.identity_from_checkpoint("resnet18", {}) == Identity("torchvision", "resnet18", 1000)
