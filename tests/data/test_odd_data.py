"""Images and folders as strangers have them, through the real entry point: what is read, refused and said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import TINY, make_image_folder, make_mask_folder, snapshot, spgsurgeon, succeed
from PIL import Image

from spgsurgeon.data.sources.opening import open_source

LRASPP = "torchvision/lraspp_mobilenet_v3_large"
SMALL = (
    *("training.epochs=1", "training.device=cpu", "trp.kind=none", "data.workers=0"),
    *("data.image_size=32", "training.batch_size=4"),
)


def of_folder(root: Path) -> tuple[str, ...]:
    recipe = ("--recipe", "digits-dropout", "data.source=folder", f"data.path={root}")
    return ("train", *TINY, *recipe, *SMALL)


def of_masks(root: Path, *more: str) -> tuple[str, ...]:
    data = ("data.source=masks", f"data.path={root}", "data.augment={crop: resize}", *more)
    return ("train", LRASPP, "--random-weights", "--recipe", "digits-dropout", *data, *SMALL, "data.image_size=64")


def said(notes: list[str], *words: str) -> bool:
    return any(all(word in note for word in words) for note in notes)


def rewrite(root: Path, form: str = "PNG", **options: Any) -> None:
    """Write all images of a tree anew, with these options of Pillow."""
    for path in root.rglob("*.png"):
        with Image.open(path) as image:
            image.load()
        image.save(path, form, **options)


def turned(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = number
    return exif


def test_training_and_eval_say_what_they_saw_of_the_images(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", each=4)
    rewrite(root, exif=turned(6))
    trained = succeed(*of_folder(root), "-o", tmp_path / "run", "--json").document
    for split in ("train", "val"):
        assert said(trained["notes"], "8 of the 8 samples", str(root / split), "EXIF orientation", "not applied")
    scored = succeed("eval", tmp_path / "run", "--data", root, "--workers", 0, "--json").document
    assert said(scored["notes"], "8 of the 8 samples", "EXIF orientation")
    rewrite(root, exif=turned(1))
    upright = succeed("eval", tmp_path / "run", "--data", root, "--workers", 0, "--json").document
    assert not said(upright["notes"], "EXIF")
    assert (upright["top1"], upright["loss"]) == (scored["top1"], scored["loss"])


# More than 8 bits


def deep_folder(root: Path, highest: int) -> Path:
    """Make two classes of 16-bit grey, one dark and one light, that use values up to `highest`."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name, level in (("dark", 0.3), ("light", 0.7)):
            (root / split / name).mkdir(parents=True)
            for number in range(8):
                pixels = random.normal(level, 0.05, (16, 16)) * highest
                Image.fromarray(pixels.clip(0, highest).astype(np.uint16)).save(root / split / name / f"{number}.png")
    return root


def test_a_range_of_values_goes_with_the_model(tmp_path: Path) -> None:
    root, run, out = deep_folder(tmp_path / "data", 4095), tmp_path / "run", tmp_path / "out"
    best = succeed(*of_folder(root), "data.value_range=[0, 4095]", "-o", run, "--json").document
    assert not said(best["notes"], "16 bits")
    succeed("strip", run, "-o", out)
    for model in (run, run / "best", out):
        scored = succeed("eval", model, "--data", root, "--workers", 0, "--json").document
        assert scored["loss"] == pytest.approx(best["best"]["loss"])
        assert said(scored["notes"], "0 to 4095", "as in training")
    dark = succeed("eval", out, "--data", root, "--workers", 0, "--value-range", 0, 65535, "--json").document
    assert dark["loss"] != pytest.approx(best["best"]["loss"])
    assert not said(dark["notes"], "as in training")
    again = succeed(*of_folder(root)[:1], out, *of_folder(root)[3:], "-o", tmp_path / "again", "--dry-run", "--json")
    assert said(again.document["notes"], "value_range=[0.0, 4095.0]", "does not say")
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"value_range": [5, 5]}))
    outcome = spgsurgeon("eval", out, "--data", root)
    assert (outcome.code, "config.json of" in outcome.err, "value_range" in outcome.err) == (1, True, True)


@pytest.mark.parametrize("given", [("5", "5"), ("7", "2"), ("0", "inf"), ("nan", "1")])
def test_ranges_that_are_none(given: tuple[str, str]) -> None:
    outcome = spgsurgeon("eval", *TINY[:1], "--data", "digits", "--value-range", *given)
    assert (outcome.code, "--value-range" in outcome.err) == (2, True)


# Masks


def binary_masks(root: Path, values: tuple[int, int] = (0, 255)) -> Path:
    make_mask_folder(root, classes=2, each=4)
    for path in root.rglob("masks/*.png"):
        with Image.open(path) as mask:
            ids = np.asarray(mask)
        Image.fromarray(np.where(ids == 1, values[1], values[0]).astype(np.uint8)).save(path)
    (root / "classes.txt").write_text("background\nobject\n")
    return root


def test_masks_of_0_and_255_are_not_trained_on_in_silence(tmp_path: Path) -> None:
    root, run = binary_masks(tmp_path / "data"), tmp_path / "run"
    before = snapshot(tmp_path)
    refused = spgsurgeon(*of_masks(root), "-o", run, "--json")
    assert refused.code == 1
    error = refused.document["error"]
    assert "hold one class, 'background', and 255" in error["message"]
    assert "data.mask_values={255: 1}" in error["hint"]
    assert snapshot(tmp_path) == before
    trained = succeed(*of_masks(root, "data.mask_values={255: 1}"), "-o", run, "--json").document
    assert not said(trained["notes"], "ignored")
    assert not said(trained["notes"], "no pixel")
    succeed("strip", run, "-o", tmp_path / "out")
    for model in (run, tmp_path / "out"):
        scored = succeed("eval", model, "--data", root, "--workers", 0, "--json").document
        assert scored["mean_iou"] == pytest.approx(trained["best"]["mean_iou"])
        assert None not in scored["class_iou"].values()
        assert said(scored["notes"], "255 for class 1", "as in training")
    other = binary_masks(tmp_path / "other", (0, 7))
    same = succeed("eval", run, "--data", other, "--workers", 0, "--mask-value", "7=1", "--json").document
    assert same["mean_iou"] == pytest.approx(trained["best"]["mean_iou"])


def test_eval_refuses_masks_of_0_and_255_too(tmp_path: Path) -> None:
    root = binary_masks(tmp_path / "data")
    succeed("graft", LRASPP, "--random-weights", "--num-classes", 2, "-o", tmp_path / "g", "-q")
    score = ("eval", tmp_path / "g", "--data", root, "--workers", 0, "--image-size", 64, "--json")
    refused = spgsurgeon(*score)
    assert (refused.code, "--mask-value 255=1" in refused.document["error"]["hint"]) == (1, True)
    ignored = succeed(*score, "--ignore", 255).document
    assert said(ignored["notes"], "50 % of the pixels")
    assert said(ignored["notes"], "1 of the 2 classes have no pixel", "'object'")
    for wrong in ("255", "255=x", "-1=1", "255=1.0"):
        assert spgsurgeon(*score[:-1], f"--mask-value={wrong}").code == 2
    assert spgsurgeon(*score[:-1], "--mask-value", "255=1", "--mask-value", "255=0").code == 2
    outcome = spgsurgeon(*score[:-1], "--mask-value", "255=2")
    assert (outcome.code, "the classes are 0 to 1" in " ".join(outcome.err.split())) == (2, True)


def test_a_class_that_training_never_sees_is_said(tmp_path: Path) -> None:
    root = make_mask_folder(tmp_path / "data", classes=2, each=4)
    trained = succeed(*of_masks(root, "data.classes=[a, b, c]"), "-o", tmp_path / "run", "--json").document
    for split in ("train", "val"):
        assert said(trained["notes"], "1 of the 3 classes have no pixel", str(root / split), "'c'")


@pytest.mark.parametrize("damage", [{"255": 9.5}, {"x": 1}, [1], {"255": -1}])
def test_damaged_mask_values_beside_weights(damage: Any, tmp_path: Path) -> None:
    succeed("graft", LRASPP, "--random-weights", "--num-classes", 2, "-o", tmp_path / "g", "-q")
    path = tmp_path / "g" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"mask_values": damage}))
    outcome = spgsurgeon("eval", tmp_path / "g", "--data", binary_masks(tmp_path / "data"), "--json")
    assert outcome.code == 1
    assert "mask_values" in outcome.document["error"]["message"]


# Folders


def test_endings_that_are_not_read_are_counted_and_said(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", each=3)
    folder = root / "train" / "class0000"
    for number, ending in enumerate((".jfif", ".gif", ".avif", ".JPG")):
        form = {".jfif": "JPEG", ".JPG": "JPEG"}.get(ending)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"more{ending}", form)
    for name in ("a.heic", "b.heic", "notes.txt", "noending"):
        (folder / name).write_bytes(b"?")
    for name in ("._0.png", ".DS_Store"):
        (folder / name).write_bytes(b"Mac OS X")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / ".ipynb_checkpoints" / "0-checkpoint.png").write_bytes((folder / "0.png").read_bytes())
    (root / "train" / ".ipynb_checkpoints").mkdir()
    (root / "train" / "__MACOSX").mkdir()
    (root / "train" / "__MACOSX" / "._0.png").write_bytes(b"Mac OS X")
    plan = succeed(*of_folder(root), "-o", tmp_path / "run", "--dry-run", "--json").document
    assert plan["data"]["train"]["samples"] == 2 * 3 + 4
    assert plan["data"]["classes"] == 2
    assert said(plan["notes"], str(root / "train"), "2 .heic", "1 .txt", "1 without an ending")
    assert said(plan["notes"], str(root / "train"), "hidden: 1")
    assert not said(plan["notes"], str(root / "val"))


def test_files_beside_masks_are_said_too(tmp_path: Path) -> None:
    root = make_mask_folder(tmp_path / "data", classes=2)
    (root / "train" / "images" / "._0.png").write_bytes(b"Mac OS X")
    (root / "train" / "images" / "0.heic").write_bytes(b"?")
    (root / "train" / "masks" / "0.tif").write_bytes(b"?")
    arguments = (*of_masks(root, "data.classes=2"), "training.batch_size=2")
    plan = succeed(*arguments, "-o", tmp_path / "run", "--dry-run", "--json")
    assert said(plan.document["notes"], "train/images", "1 .heic")
    assert said(plan.document["notes"], "train/masks", "1 .tif")


def test_a_data_set_of_one_class_is_refused(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", classes=1, each=8)
    outcome = spgsurgeon(*of_folder(root), "-o", tmp_path / "run", "--json")
    assert outcome.code == 2
    assert "has one class, 'class0000'" in outcome.document["error"]["message"]
    assert "SPLIT/CLASS/IMAGE" in outcome.document["error"]["hint"]
    assert not (tmp_path / "run").exists()
    import timm
    import torch

    torch.save(timm.create_model("test_resnet", num_classes=1).state_dict(), tmp_path / "one.pth")
    outcome = spgsurgeon("eval", tmp_path / "one.pth", "--arch", TINY[0], "--data", root)
    assert (outcome.code, "has one class" in " ".join(outcome.err.split())) == (2, True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", each=4)
    for split in ("train", "val"):
        latin = os.fsencode(root / split) + b"/caf\xe9"
        os.rename(root / split / "class0001", latin)
        os.rename(latin + b"/0.png", latin + b"/\xfcber.png")
    trained = succeed(*of_folder(root), "-o", tmp_path / "run", "--json").document
    assert said(trained["notes"], "not UTF-8", "called caf\\xe9")
    config = json.loads((tmp_path / "run" / "best" / "config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == ["caf\\xe9", "class0000"]
    source = open_source("folder", root, "val")
    assert source.describe(3).endswith("val/caf\\xe9/\\xfcber.png")
    assert source.read(3)[1] == 0
    scored = succeed("eval", tmp_path / "run", "--data", root, "--workers", 0)
    assert scored.out.encode("utf-8")
    os.mkdir(os.fsencode(root / "val") + b"/caf\\xe9")
    os.rename(os.fsencode(root / "val") + b"/caf\xe9/1.png", os.fsencode(root / "val") + b"/caf\\xe9/1.png")
    outcome = spgsurgeon("eval", tmp_path / "run", "--data", root)
    assert (outcome.code, "come to the name" in " ".join(outcome.err.split())) == (2, True)


def test_a_pipe_among_images_ends_a_run_and_hangs_none(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", each=4)
    os.mkfifo(root / "val" / "class0000" / "pipe.png")
    command = [sys.executable, "-m", "spgsurgeon", *of_folder(root), "-o", tmp_path / "run", "data.workers=1"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 1
    assert "pipe.png: it is not a regular file" in found.stderr.replace("\n", " ")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other file systems take names in UTF-8 only")
def test_class_folders_whose_names_are_not_utf_8_are_spelt_out(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", each=4)
    for split in ("train", "val"):
        (root / split / "class0001").rename(root / split / os.fsdecode(b"caf\xe9"))
    succeed(*of_folder(root), "-o", tmp_path / "run")
    succeed("train", "-o", tmp_path / "run", "--resume")
    succeed("strip", tmp_path / "run", "-o", tmp_path / "out")
    succeed("report", tmp_path / "run", "-o", tmp_path / "page")
    succeed("eval", tmp_path / "out", "--data", root, "--workers", 0, "--json")
    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert config["label_names"] == ["caf\\xe9", "class0000"]


# Images that can't be used


def test_eval_leaves_out_what_the_run_left_out(tmp_path: Path) -> None:
    root, run, out = make_image_folder(tmp_path / "data", each=6), tmp_path / "run", tmp_path / "out"
    broken = [root / "val" / "class0000" / "1.png", root / "val" / "class0001" / "3.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:40])
    trained = succeed(*of_folder(root), "data.unreadable=skip", "-o", run, "--json").document
    succeed("strip", run, "-o", out)
    score = ("--data", root, "--workers", 0, "--json")
    for model in (run, run / "best", run / "last"):
        scored = succeed("eval", model, *score).document
        assert scored["loss"] == pytest.approx(trained["best"]["loss"])
        assert scored["samples"] == 10
        assert list(scored["unreadable"]) == [str(path) for path in broken]
        assert said(scored["notes"], "2 samples can't be used", "as in training")
    stopped = spgsurgeon("eval", run, *score, "--unreadable", "stop")
    assert stopped.code == 1
    stopped = spgsurgeon("eval", out, *score)
    assert stopped.code == 1
    assert "--unreadable skip" in stopped.document["error"]["hint"]
    left_out = succeed("eval", out, *score, "--unreadable", "skip").document
    assert len(left_out["unreadable"]) == 2
    assert not said(left_out["notes"], "as in training")
    assert spgsurgeon("eval", out, *score, "--unreadable", "never").code == 2


def test_a_large_image_is_read_where_it_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_image_folder(tmp_path / "data", each=4)
    Image.new("RGB", (80, 80)).save(root / "train" / "class0000" / "0.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    outcome = spgsurgeon(*of_folder(root), "data.augment={crop: random-resized}", "-o", tmp_path / "a")
    assert outcome.code == 1
    assert "6,400 pixels, more than the 4,000" in " ".join(outcome.err.split())
    assert "data.max_pixels=6400" in " ".join(outcome.err.split())
    allowed = (*of_folder(root), "data.max_pixels=6400", "data.augment={crop: random-resized}", "-o", tmp_path / "b")
    succeed(*allowed)
