"""transformers' image classifiers go the whole way: grafted, trained, resumed, scored, stripped, and read by it."""

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import spgsurgeon, succeed
from folder_runs import RECIPE, check_resuming, trained, write_recipe
from PIL import Image
from tiny_transformers import saved, tiny

SHORTER = {"size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32}, "do_center_crop": True}
NAMES = {
    "ViT": {"image_processor_type": "ViTImageProcessor", "size": {"height": 32, "width": 32}},
    "DeiT": {"image_processor_type": "DeiTImageProcessor", "size": 36, "crop_size": 32},
    "Beit": {"image_processor_type": "BeitImageProcessor", "size": 32},
    "Swin": {"image_processor_type": "ViTImageProcessor", "size": 32},
    "ConvNext": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 32}},
    "Dinov2": {"image_processor_type": "BitImageProcessor"} | SHORTER,
}
SHADES = {"dark": 60, "light": 190}


def image(shade: str, number: int) -> Image.Image:
    drawn = np.random.default_rng(number)
    height, width = (int(side) for side in drawn.integers(33, 60, 2))
    pixels = np.clip(drawn.normal(SHADES[shade], 30, (height, width, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels)


def made(folder: Path, name: str = "ViT") -> Path:
    for split, start, count in (("train", 0, 12), ("val", 100, 5)):
        for shade in SHADES:
            place = folder / "data" / split / shade
            place.mkdir(parents=True)
            for number in range(start, start + count):
                image(shade, number).save(place / f"{number}.png")
    saved(tiny(f"{name}ForImageClassification", num_labels=2), folder / "model")
    (folder / "model" / "preprocessor_config.json").write_text(json.dumps(NAMES[name]))
    write_recipe(folder, "folder", split="val", batch_size=8)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_of_transformers_goes_the_whole_way(tmp_path, name) -> None:
    transformers = pytest.importorskip("transformers")
    work = made(tmp_path, name)
    succeed("graft", work / "model", "-o", work / "grafted", "--trp", "dropout", "--replicas", "2", "--rate", "0.1")
    found = trained(work, "run", model="grafted").document
    assert found["best"]["samples"] == 10
    stripped = succeed("strip", "--json", work / "run", "-o", work / "better").document
    assert stripped["proof"]["from_pretrained_equal"]
    files = (work / folder / "preprocessor_config.json" for folder in ("better", "model"))
    assert next(files).read_bytes() == next(files).read_bytes()
    scored = succeed("eval", "--json", work / "better", "--data", work / "data").document
    assert scored["top1"] == pytest.approx(found["best"]["top1"])
    predict = transformers.pipeline("image-classification", model=str(work / "better"))
    hits = sum(predict(image(shade, n))[0]["label"] == shade for shade in SHADES for n in range(100, 105))
    assert scored["top1"] == pytest.approx(100 * hits / 10)


@pytest.mark.slow
def test_a_run_resumes_to_the_same_weights(tmp_path) -> None:
    check_resuming(made(tmp_path))


@pytest.mark.slow
def test_its_steps_are_measured_and_compared(tmp_path) -> None:
    work = made(tmp_path)
    of = ("--recipe", work / RECIPE, "--json", "training.device=cpu")
    succeed("bench", work / "model", *of, "--data", "recipe", "training.batch_size=4")
    options = ("--seeds", "1", "--learning-rates", "1", "training.epochs=1", "-o", work / "compared")
    succeed("compare", work / "model", *of, *options)


def test_what_does_not_fit_is_said(tmp_path) -> None:
    work = made(tmp_path)
    command = ("train", "--json", work / "model", "--recipe", work / RECIPE, "-o", work / "run")
    assert spgsurgeon(*command, "data.image_size=64").code == 2
    (work / "model" / "preprocessor_config.json").unlink()
    assert spgsurgeon(*command).document["error"]["code"] == "missing-preprocessor"
    assert not (work / "run").exists()
