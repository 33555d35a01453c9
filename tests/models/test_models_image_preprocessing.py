"""How transformers' image classifiers want their images: as transformers itself prepares them."""

import json
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_transformers import saved, tiny

from spgsurgeon.data.transforms.augmentation import evaluation_transform
from spgsurgeon.errors import ArchitectureError, DamagedFileError, SurgeonError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

VIT, DEIT, BEIT, SWIN, CONVNEXT, DINO = (
    f"{name}ForImageClassification" for name in ("ViT", "DeiT", "Beit", "Swin", "ConvNext", "Dinov2")
)
SIZES = [(31, 45), (97, 33), (64, 64), (40, 41), (200, 151)]
SHORTER = {"size": {"shortest_edge": 43}, "crop_size": {"height": 32, "width": 32}}
FILES = {
    "vit": (VIT, "ViTImageProcessor", {"size": {"height": 32, "width": 32}}),
    "vit, 2021": (VIT, None, {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2}),
    "deit": (DEIT, "DeiTImageProcessor", {"size": 37, "crop_size": 32}),
    "beit": (BEIT, "BeitImageProcessorFast", {"size": 32, "image_mean": [0.1, 0.2, 0.3]}),
    "swin": (SWIN, "ViTImageProcessor", {"size": {"height": 32, "width": 32}, "resample": 3}),
    "convnext": (CONVNEXT, "ConvNextImageProcessor", {"size": {"shortest_edge": 32}, "crop_pct": 0.875}),
    "large convnext": (CONVNEXT, "ConvNextImageProcessor", {"size": {"shortest_edge": 384}}),
    "dinov2": (DINO, "BitImageProcessor", SHORTER | {"do_center_crop": True}),
    "not normalised": (VIT, "ViTImageProcessor", {"size": 32, "do_normalize": False}),
}


def with_processor(folder: Path, name: str, kind: str | None, says: dict) -> Path:
    saved(tiny(name), folder)
    document = ({} if kind is None else {"image_processor_type": kind}) | says
    (folder / "preprocessor_config.json").write_text(json.dumps(document))
    return folder


def preprocessing_of(folder: Path):
    return open_model(ModelRequest(str(folder))).preprocessing


@pytest.mark.parametrize("case", FILES)
def test_images_are_those_that_transformers_makes(tmp_path, case) -> None:
    transformers = pytest.importorskip("transformers")
    folder = with_processor(tmp_path / "model", *FILES[case])
    transform = evaluation_transform(preprocessing_of(folder))
    theirs = transformers.AutoImageProcessor.from_pretrained(str(folder))
    spread = float(torch.tensor(preprocessing_of(folder).std).min())
    for (width, height), mode in product(SIZES, ("RGB", "L")):
        drawn = np.random.default_rng(width).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), dtype=np.uint8)
        image = Image.fromarray(drawn).convert(mode).convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        expected = theirs(images=image, return_tensors="pt")["pixel_values"][0]
        found = transform(image)
        assert found.shape == expected.shape
        levels = (found - expected).abs() * 255 * spread  # of 8 bits: torchvision resizes tensors, and here Pillow does
        assert levels.max() <= 2.5, (width, height, levels.max())
        assert levels.mean() < 0.3


@pytest.mark.parametrize(
    ("says", "error"),
    [
        ({"size": {"height": "32", "width": 32}}, DamagedFileError),
        ({"size": {"height": 10**9, "width": 32}}, DamagedFileError),
        ({"size": {"longest_edge": 32}}, DamagedFileError),
        ({"size": True}, DamagedFileError),
        ({"image_mean": [0.5]}, DamagedFileError),
        ({"image_std": 0}, DamagedFileError),
        ({"image_std": [0.5, float("nan"), 0.5]}, DamagedFileError),
        ({"resample": "bilinear"}, DamagedFileError),
        ({"resample": 5}, ArchitectureError),
        ({"do_resize": False}, ArchitectureError),
        ({"do_rescale": False}, ArchitectureError),
        ({"rescale_factor": 0.5}, ArchitectureError),
        ({"size": {"shortest_edge": 32}}, ArchitectureError),  # and no crop: images of several sizes
        ({"size": 32, "do_center_crop": True, "crop_size": 40}, ArchitectureError),
        ({"image_processor_type": "DonutImageProcessor"}, ArchitectureError),
    ],
)
def test_what_a_file_says_is_looked_through(tmp_path, says, error) -> None:
    folder = with_processor(tmp_path / "model", VIT, "ViTImageProcessor", says)
    with pytest.raises(error):
        preprocessing_of(folder)


def test_without_the_file_it_is_asked_for(tmp_path) -> None:
    folder = with_processor(tmp_path / "model", VIT, "ViTImageProcessor", {})
    for content in (b"[", b"[]"):
        (folder / "preprocessor_config.json").write_bytes(content)
        with pytest.raises(DamagedFileError):
            preprocessing_of(folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(SurgeonError) as caught:
        preprocessing_of(folder)
    assert (type(caught.value), caught.value.code) == (UsageError, "missing-preprocessor")
