"""Stripped folders as other programs open them: timm, transformers, plain torch, onnxruntime."""

import copy
import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import timm
import torch
from command_line import DIGITS, succeed
from PIL import Image
from safetensors.torch import load_file, save_file

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.strip import strip_folder
from spgsurgeon.loading.opening import load
from spgsurgeon.replicas.kinds.dropout import Dropout

CLASSES = 5
ARCHITECTURES = {"test_resnet": {}, "test_vit": {}, "test_efficientnet": {"in_chans": 1}}


@pytest.fixture(scope="module", params=ARCHITECTURES)
def stripped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that was grafted and stripped, of a checkpoint of each architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(0)
    arguments = {"num_classes": CLASSES, **ARCHITECTURES[request.param]}
    module = timm.create_model(request.param, **arguments)
    timm.models.save_for_hf(module, folder / "base", model_args=arguments, safe_serialization=True)
    graft_folder(str(folder / "base"), folder / "grafted", replicas=Dropout(replicas=2))
    strip_folder(folder / "grafted", folder / "stripped", exports=["safetensors", "pt", "onnx"])
    return folder / "stripped"


def images_for(model: torch.nn.Module, folder: Path) -> torch.Tensor:
    size = json.loads((folder / "config.json").read_text())["pretrained_cfg"]["input_size"]
    return torch.rand(2, *size, generator=torch.Generator().manual_seed(1))


def timms(folder: Path) -> torch.nn.Module:
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


@torch.inference_mode()
def test_timm_and_plain_torch_compute_what_we_do(stripped):
    theirs, images = timms(stripped), images_for(load(stripped), stripped)
    assert torch.equal(theirs(images), load(stripped)(images))
    config = json.loads((stripped / "config.json").read_text())
    module = timm.create_model(config["architecture"], num_classes=CLASSES, **config["model_args"]).eval()
    for weights in (load_file(stripped / "model.safetensors"), torch.load(stripped / "model.pt", weights_only=True)):
        module.load_state_dict(weights)
        assert torch.equal(module(images), theirs(images))


@torch.inference_mode()
def test_onnxruntime_computes_it_to_float_rounding(stripped):
    images = images_for(load(stripped), stripped)
    (found,) = onnxruntime.InferenceSession(stripped / "model.onnx").run(["logits"], {"images": images.numpy()})
    np.testing.assert_allclose(found, timms(stripped)(images).numpy(), atol=1e-4)


@torch.inference_mode()
def test_transformers_opens_model_and_processor_and_computes_what_timm_does(stripped):
    transformers = pytest.importorskip("transformers")
    opened = transformers.AutoModelForImageClassification.from_pretrained(stripped).eval()
    # It computes on the mapped file, and where a tensor starts in it some kernels add up in another order: the same
    # bits of weights, and logits that differ by 7e-9.
    model = copy.deepcopy(opened)
    processor = transformers.AutoImageProcessor.from_pretrained(stripped)
    theirs = timms(stripped)
    config = timm.data.resolve_model_data_config(theirs)
    channels = config["input_size"][0]
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, channels), dtype=np.uint8)
    image = Image.fromarray(noise if channels == 3 else noise[..., 0])
    pixels = processor(image)["pixel_values"]
    assert torch.equal(pixels[0], timm.data.create_transform(**config, is_training=False)(image))
    assert all(torch.equal(model.timm_model.state_dict()[key], value) for key, value in theirs.state_dict().items())
    assert torch.equal(model(pixels).logits, theirs(pixels))
    torch.testing.assert_close(opened(pixels).logits, theirs(pixels), rtol=0, atol=1e-6)
    if channels != 3:  # pipeline() makes every image RGB
        return
    classify = transformers.pipeline("image-classification", str(stripped), device="cpu")
    found = sorted(guess["score"] for guess in classify([image], top_k=CLASSES)[0])
    assert found == pytest.approx(theirs(pixels).softmax(-1)[0].sort().values.tolist(), abs=1e-6)


def described(folder: Path) -> dict[str, object]:
    config = json.loads((folder / "config.json").read_text())
    assert "num_classes" not in config["model_args"]
    return config["pretrained_cfg"]


def base_with(folder: Path, classes: int = CLASSES, **description: object) -> Path:
    """Write timm's folder for a test_resnet whose description is changed."""
    module = timm.create_model("test_resnet", num_classes=classes)
    timm.models.save_for_hf(module, folder, model_config={"pretrained_cfg": description}, safe_serialization=True)
    return folder


def test_the_crop_and_the_size_for_testing_are_those_of_the_base(tmp_path):
    says = {"crop_mode": "squash", "test_input_size": [3, 192, 192], "test_crop_pct": 1.0, "tag": "mine"}
    graft_folder(str(base_with(tmp_path / "base", **says)), tmp_path / "grafted")
    strip_folder(tmp_path / "grafted", tmp_path / "stripped")
    assert described(tmp_path / "stripped").items() >= says.items()
    for test_size, options in ((160, {}), (192, {"use_test_size": True})):
        found = timm.data.resolve_model_data_config(timms(tmp_path / "stripped"), **options)
        assert (found["input_size"], found["crop_mode"]) == ((3, test_size, test_size), "squash")


@pytest.mark.parametrize("num_classes", [CLASSES, CLASSES + 1])
def test_a_tag_goes_with_the_head_and_random_weights_have_neither_tag_nor_license(num_classes, tmp_path):
    says = {"tag": "mine", "license": "mit"}
    graft_folder(str(base_with(tmp_path / "base", **says)), tmp_path / "grafted", num_classes=num_classes)
    found = described(tmp_path / "grafted")
    assert found["license"] == "mit"
    assert ("tag" in found) is (num_classes == CLASSES)
    graft_folder("timm/test_resnet", tmp_path / "random", num_classes=num_classes, random_seed=0)
    assert {"tag", "license"}.isdisjoint(described(tmp_path / "random"))


def test_weights_of_nobody_knows_whom_have_neither_tag_nor_license(tmp_path):
    save_file(timm.create_model("test_resnet").state_dict(), tmp_path / "model.safetensors")
    graft_folder(str(tmp_path / "model.safetensors"), tmp_path / "grafted", arch="timm/test_resnet")
    assert {"tag", "license"}.isdisjoint(described(tmp_path / "grafted"))


def test_retrained_weights_are_not_those_that_the_tag_names(tmp_path):
    says = {"tag": "mine", "license": "mit", "test_input_size": [3, 192, 192], "crop_mode": "border"}
    base_with(tmp_path / "base", classes=10, **says)
    succeed("train", tmp_path / "base", *DIGITS, "data.limit=60", "-o", tmp_path / "run")
    strip_folder(tmp_path / "run", tmp_path / "stripped")
    found = described(tmp_path / "stripped")
    assert (found["license"], found["crop_mode"], found["input_size"]) == ("mit", "border", [3, 32, 32])
    assert {"tag", "test_input_size"}.isdisjoint(found)
