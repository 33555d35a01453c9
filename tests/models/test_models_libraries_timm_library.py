"""timm: identities, preprocessing, config.json, and what its training checkpoints say."""

import argparse
import json
from dataclasses import replace

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3

from spgsurgeon.errors import ArchitectureError, SurgeonError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models.libraries.building import build
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.registry import library

TIMM = library("timm")
IDENTITIES = {
    "grey": Identity("timm", "test_resnet", 7, {"in_chans": 1}),
    "args": Identity("timm", "test_vit", 7, {"img_size": 48, "global_pool": "avg", "depth": 2, "embed_dim": 32}),
    "nested": Identity("timm", "test_convnext", 7, {"dims": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}),
    "plain": Identity("timm", "test_efficientnet", 7),
}


@pytest.fixture(params=IDENTITIES)
def identity(request):
    return IDENTITIES[request.param]


def as_json(document):
    return json.loads(json.dumps(document))


def test_config_and_identity_are_inverse(identity):
    module = build(identity)
    again = TIMM.identity_from_config(as_json(TIMM.config(identity, module, None)))
    rebuilt = build(again)
    assert (again.architecture, again.num_classes) == (identity.architecture, 7)
    assert {key: again.model_args[key] for key in identity.model_args if key != "img_size"} == {
        key: value for key, value in identity.model_args.items() if key != "img_size"
    }
    assert TIMM.preprocessing(again, rebuilt) == TIMM.preprocessing(identity, module)
    mine, others = module.state_dict(), rebuilt.state_dict()
    assert [(key, value.shape) for key, value in mine.items()] == [(key, value.shape) for key, value in others.items()]
    again_config = TIMM.config(again, rebuilt, None)
    assert TIMM.identity_from_config(as_json(again_config)) == again


def test_timm_itself_reads_the_folder(identity, tmp_path):
    module = build(identity)
    config = TIMM.config(identity, module, ["a", "b", "c", "d", "e", "f", "g"])
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(module.state_dict(), tmp_path / "model.safetensors")
    read = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    images = torch.randn(2, *TIMM.preprocessing(identity, module).input_size)
    assert torch.equal(read(images), module(images))
    assert read.pretrained_cfg["label_names"][0] == "a"


def test_names_of_classes_stay_with_the_identity():
    config = as_json(TIMM.config(IDENTITIES["plain"], build(IDENTITIES["plain"]), ["a"] * 7))
    assert TIMM.identity_from_config(config).pretrained_cfg["label_names"] == ["a"] * 7


def test_preprocessing_is_timms_own():
    identity = Identity("timm", "test_vit", 7)
    found = TIMM.preprocessing(identity, build(identity))
    assert found.input_size == (3, 160, 160)
    assert found.mean == found.std == (0.5, 0.5, 0.5)
    assert (found.interpolation, found.crop_pct) == ("bicubic", 0.95)


def test_preprocessing_has_as_many_channels_as_the_model_reads():
    identity = replace(IDENTITIES["grey"], pretrained_cfg={"mean": [0.1, 0.2, 0.6], "std": [0.2, 0.2, 0.5]})
    found = TIMM.preprocessing(identity, build(identity))
    assert found.input_size[0] == 1
    assert found.mean == pytest.approx((0.3,))
    assert found.std == pytest.approx((0.3,))


@pytest.mark.parametrize(("img_size", "expected"), [(64, (3, 64, 64)), ([64, 96], (3, 64, 96))])
def test_pictures_have_the_size_that_the_model_was_built_for(img_size, expected):
    identity = Identity("timm", "test_vit", 7, {"img_size": img_size})
    assert TIMM.preprocessing(identity, build(identity)).input_size == expected


def test_an_identity_settles_the_input_channels_by_the_first_convolution():
    tensors = build(IDENTITIES["grey"]).state_dict()
    assert TIMM.args_from_tensors(Identity("timm", "test_resnet", 7), tensors) == {"in_chans": 1}
    assert TIMM.args_from_tensors(Identity("timm", "test_resnet", 7), {}) == {}
    plain = build(IDENTITIES["plain"]).state_dict()
    assert TIMM.args_from_tensors(IDENTITIES["plain"], plain) == {}


@pytest.mark.parametrize("architecture", [None, "test_resnett", "os.system"])
def test_a_config_that_names_nothing_timm_has_is_refused(architecture):
    with pytest.raises(ArchitectureError, match="has no architecture"):
        TIMM.identity_from_config({"architecture": architecture})


@pytest.mark.parametrize(
    ("architecture", "args"),
    [
        ("test_resnet", {"class_token": True}),
        ("test_resnet", {"layers": 3}),
        ("vitamin_small_224", {"embed_dim": 64}),  # an AssertionError of timm's
        ("nextvit_small", {"depths": [1, 1, 1, 1]}),  # an IndexError
    ],
)
def test_arguments_that_do_not_fit_are_refused(architecture, args):
    with pytest.raises(ArchitectureError, match=f"timm can't build {architecture}: "):
        build(Identity("timm", architecture, 7, args))


@pytest.mark.parametrize(
    ("architecture", "tag", "kind", "message"),
    [
        ("test_resnett", None, ArchitectureError, "timm has no model 'test_resnett'"),
        ("test_resnet", "r999_in1k", ArchitectureError, "it has test_resnet.r160_in1k"),
    ],
)
def test_an_unknown_name_is_refused_with_what_there_is(architecture, tag, kind, message):
    with pytest.raises(kind, match=message):
        TIMM.pretrained(architecture, tag)


def test_weights_that_can_not_be_had_are_said_to_be_missing(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SurgeonError, match="not in the cache and could not be downloaded") as caught:
        TIMM.pretrained("test_resnet", "r160_in1k")
    assert type(caught.value) is SurgeonError
    assert "--random-weights" in caught.value.hint


# The arguments of timm's train.py that shape the model or its images, as it records them when none is given.
DEFAULTS = {
    "num_classes": None,
    "in_chans": None,
    "img_size": None,
    "input_size": None,
    "gp": None,
    "model_kwargs": {},
    "crop_pct": None,
    "mean": None,
    "std": None,
    "interpolation": "",
}


def train_with_timm(folder, model: str, built: dict, **args):
    """Write what train.py writes when it was called with `args`, and return the module it trained."""
    module = timm.create_model(model, **built)
    averaged = ModelEmaV3(module)
    for parameter in averaged.module.parameters():
        parameter.data.add_(0.01)
    saver = CheckpointSaver(
        module,
        torch.optim.SGD(module.parameters(), lr=0.1),
        args=argparse.Namespace(model=model, **DEFAULTS | args),
        model_ema=averaged,
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
    )
    saver.save_checkpoint(0, metric=1.0)
    return averaged.module.eval()


@pytest.mark.parametrize(
    ("model", "built", "args", "input_size"),
    [
        ("test_vit", {"img_size": 96}, {"img_size": 96}, (3, 96, 96)),
        ("test_vit", {"img_size": (64, 96)}, {"input_size": [3, 64, 96]}, (3, 64, 96)),
        ("test_vit", {"img_size": 48}, {"model_kwargs": {"img_size": 48}}, (3, 48, 48)),
        ("test_vit", {"global_pool": "avg"}, {"gp": "avg"}, (3, 160, 160)),
        ("test_vit", {"depth": 2, "in_chans": 1}, {"in_chans": 1, "model_kwargs": {"depth": 2}}, (1, 160, 160)),
        ("test_resnet", {}, {"img_size": 96}, (3, 96, 96)),
        ("test_resnet", {"in_chans": 1}, {"input_size": [1, 64, 48]}, (1, 64, 48)),
        ("test_resnet.r160_in1k", {}, {}, (3, 160, 160)),
        ("test_byobnet", {"num_classes": 5}, {"num_classes": 5, "img_size": 32}, (3, 32, 32)),
    ],
)
@pytest.mark.parametrize("arch", [None, "same"])
def test_a_checkpoint_of_timms_training_script_opens_as_the_model_it_trained(
    model, built, args, input_size, arch, tmp_path
):
    trained = train_with_timm(tmp_path, model, built, **args)
    opened = open_model(ModelRequest(str(tmp_path / "last.pth.tar"), arch=None if arch is None else f"timm/{model}"))
    assert opened.preprocessing.input_size == input_size
    images = torch.randn(2, *input_size)
    assert torch.equal(opened.module(images), trained(images))
    reread = TIMM.identity_from_config(as_json(opened.config()))
    assert TIMM.preprocessing(reread, build(reread)).input_size == input_size


def test_the_arguments_of_a_checkpoint_are_not_those_of_another_architecture(tmp_path):
    train_with_timm(tmp_path, "test_vit", {"num_classes": 5, "depth": 2}, num_classes=5, model_kwargs={"depth": 2})
    with pytest.raises(ArchitectureError, match="does not fit timm/test_resnet: missing conv1"):
        open_model(ModelRequest(str(tmp_path / "last.pth.tar"), arch="timm/test_resnet"))


def test_preprocessing_follows_the_weights_that_training_started_from():
    tagged = TIMM.identity_from_checkpoint("vit_base_patch16_224.augreg_in21k", {})
    other = TIMM.identity_from_checkpoint("vit_base_patch16_224.orig_in21k", {"img_size": 64})
    assert tagged.pretrained_cfg["tag"] == "augreg_in21k"
    assert tagged.num_classes == other.num_classes == 1000
    assert other.pretrained_cfg["input_size"] == [3, 64, 64]
    assert other.model_args == {"img_size": [64, 64]}
    assert not {"url", "hf_hub_id"} & set(tagged.pretrained_cfg)
    with pytest.raises(ArchitectureError, match="it has vit_base_patch16_224"):
        TIMM.identity_from_checkpoint("vit_base_patch16_224.mine", {})


def test_pictures_are_normalised_and_cropped_as_the_training_script_was_told(tmp_path):
    told = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.1], "interpolation": "nearest", "crop_pct": 0.8}
    train_with_timm(tmp_path, "test_resnet", {}, **told)
    opened = open_model(ModelRequest(str(tmp_path / "last.pth.tar")))
    reread = TIMM.identity_from_config(as_json(opened.config()))
    for seen in (opened.preprocessing, TIMM.preprocessing(reread, build(reread))):
        assert (seen.mean, seen.std) == ((0.5, 0.4, 0.3), (0.2, 0.2, 0.1))
        assert (seen.interpolation, seen.crop_pct) == ("nearest", 0.8)
