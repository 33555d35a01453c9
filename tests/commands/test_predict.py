"""Classes and probabilities of images: those that `eval` scores by, as a table, as csv and as JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from command_line import make_image_folder, make_mask_folder, spgsurgeon, succeed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """A stripped model that knows its two classes by name, and images of both."""
    folder = tmp_path_factory.mktemp("predict")
    data = make_image_folder(folder / "data", classes=2, each=4)
    settings = (f"data={{path: {data}, image_size: 32, workers: 0, augment: {{crop: pad}}}}", "training.epochs=2")
    small = ("training.batch_size=4", "training.device=cpu", "training.optimizer.lr=0.05")
    model = ("timm/test_resnet", "--random-weights", "--recipe", "digits-dropout")
    succeed("train", *model, *settings, *small, "-o", folder / "run")
    succeed("strip", folder / "run", "-o", folder / "model")
    return folder / "model", sorted((data / "val").rglob("*.png"))


@pytest.mark.slow
def test_it_says_what_eval_scores(trained: tuple[Path, list[Path]]) -> None:
    model, images = trained
    document = succeed("predict", model, *images, "--json", "--batch-size", 3).document
    assert [one["file"] for one in document["predictions"]] == [str(image) for image in images]
    hits = [one["class"] == image.parent.name for one, image in zip(document["predictions"], images, strict=True)]
    scored = succeed("eval", model, "--data", images[0].parents[2], "--json").document
    assert 100 * sum(hits) / len(hits) == pytest.approx(scored["top1"])
    for one in succeed("predict", model, *images, "--top", 5, "--json").document["predictions"]:
        assert sum(found["probability"] for found in one["top"]) == pytest.approx(1.0, abs=1e-4)
        assert one["top"][0]["probability"] >= one["top"][1]["probability"] == pytest.approx(1 - one["probability"])
    table = succeed("predict", model, images[0]).out
    assert document["predictions"][0]["class"] in table
    rows = list(csv.reader(succeed("predict", model, *images, "--csv").out.splitlines()))
    assert rows[0] == ["file", "class", "probability"]
    assert [row[1] for row in rows[1:]] == [one["class"] for one in document["predictions"]]
    json.dumps(document)


@pytest.mark.slow
def test_what_it_refuses(trained: tuple[Path, list[Path]], tmp_path: Path) -> None:
    model, images = trained
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    outcome = spgsurgeon("predict", model, images[0], broken, "--json")
    assert outcome.code == 1
    assert str(broken) in outcome.document["error"]["message"]
    masks = make_mask_folder(tmp_path / "masks", classes=21)
    lraspp = ("torchvision/lraspp_mobilenet_v3_large", "--random-weights", "--num-classes", 3)
    succeed("graft", *lraspp, "-o", tmp_path / "grafted")
    assert spgsurgeon("predict", tmp_path / "grafted", *masks.rglob("0.png")).code == 2
