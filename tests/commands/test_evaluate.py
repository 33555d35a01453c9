"""`spgsurgeon eval` of segmentation models: scores by name, which data it takes, and what it says of other data."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import Outcome, make_image_folder, spgsurgeon, succeed
from PIL import Image
from torch.nn.functional import cross_entropy, interpolate
from torchvision.models import get_model

from spgsurgeon.tasks import confusion

CLASSES = 3
TINY_CLASSIFIER = "timm/test_resnet"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a segmentation model, a classifier, and data for either."""
    root = tmp_path_factory.mktemp("eval")
    torch.manual_seed(0)
    model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=CLASSES)
    torch.save(model.state_dict(), root / "lraspp.pth")
    import timm

    torch.save(timm.create_model("test_resnet", num_classes=2).state_dict(), root / "classifier.pth")
    make_image_folder(root / "labelled", splits=("val",))
    random = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (root / "drawn" / "val" / kind).mkdir(parents=True)
    for number, (height, width) in enumerate([(40, 50), (40, 50), (60, 40)]):
        pixels = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
        ids = random.choice(
            np.array([0, 1, 9], dtype=np.uint8), (height, width)
        )  # 2 is not drawn, 9 stands for nothing
        Image.fromarray(pixels).save(root / "drawn" / "val" / "images" / f"{number}.png")
        Image.fromarray(ids).save(root / "drawn" / "val" / "masks" / f"{number}.png")
    return root


def evaluate(home: Path, model: str, data: str, *arguments: object) -> Outcome:
    architecture = "torchvision/lraspp_mobilenet_v3_large" if model == "lraspp.pth" else TINY_CLASSIFIER
    where = home / data if (home / data).exists() else data
    options = ("--arch", architecture, "--device", "cpu", "--workers", 0, *arguments)
    return spgsurgeon("eval", home / model, "--data", where, *options)


def by_hand(home: Path) -> tuple[float, float]:
    """Return mean IoU and loss at a shorter edge of 32 pixels, from the model and the files themselves."""
    model = get_model("lraspp_mobilenet_v3_large", weights=None, weights_backbone=None, num_classes=CLASSES).eval()
    model.load_state_dict(torch.load(home / "lraspp.pth"))
    confusion, losses = torch.zeros(CLASSES, CLASSES), []
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for path in sorted((home / "drawn" / "val" / "images").iterdir()):
        with Image.open(path) as image, Image.open(path.parents[1] / "masks" / path.name) as drawn:
            width, height = (round(side * 32 / min(image.size)) for side in image.size)
            pixels = torch.from_numpy(np.asarray(image.resize((width, height), Image.Resampling.BILINEAR)) / 255.0)
            mask = torch.from_numpy(np.array(drawn)).float()[None, None]
        mask = interpolate(mask, (height, width), mode="nearest-exact")[0].long()
        logits = model(((pixels - mean) / std).permute(2, 0, 1)[None].float())["out"]
        counted = mask != 9
        for truth, guess in zip(mask[counted], logits.argmax(1)[counted], strict=True):
            confusion[truth, guess] += 1
        losses.append(cross_entropy(logits, mask.masked_fill(~counted, -100), reduction="none")[counted])
    hits = confusion.diagonal()
    unions = confusion.sum(0) + confusion.sum(1) - hits
    return 100 * (hits / unions)[unions > 0].mean().item(), torch.cat(losses).mean().item()


def test_scores_of_masks(home: Path) -> None:
    document = evaluate(home, "lraspp.pth", "drawn", "--ignore", 9, "--image-size", 32, "--json").document
    assert document["samples"] == 3
    assert document["shorter_edge"] == 32
    assert document["images_per_second"] > 0
    assert list(document["class_iou"]) == ["0", "1", "2"]
    iou, loss = by_hand(home)
    assert document["mean_iou"] == pytest.approx(iou, abs=0.2)  # a prediction may tip over at another batch size
    assert document["loss"] == pytest.approx(loss, rel=1e-3)
    assert 0 < document["pixel_accuracy"] < 100


def test_the_classes_of_the_folder_are_named(home: Path) -> None:
    names = home / "drawn" / "classes.txt"
    try:
        names.write_text("sky\nroad\ntree\n")
        shown = evaluate(home, "lraspp.pth", "drawn", "--ignore", 9, "--image-size", 32)
        assert shown.code == 0
        assert all(word in shown.out for word in ("mean IoU", "pixel accuracy", "3 images", "sky", "road", "tree"))
        names.write_text("sky\nroad\n")
        refused = evaluate(home, "lraspp.pth", "drawn", "--ignore", 9)
        assert refused.code == 2
        assert "classes.txt says 2 classes" in " ".join(refused.err.split())
        assert "has 3" in refused.err
    finally:
        names.unlink()


def test_a_classifier_is_scored_as_before(home: Path) -> None:
    document = evaluate(home, "classifier.pth", "labelled", "--json").document
    assert document.keys() >= {"top1", "top5", "samples", "images_per_second", "image_size"}


@pytest.mark.parametrize(
    ("model", "data", "arguments", "code", "words"),
    [
        ("lraspp.pth", "drawn", (), 1, ("the class id 9", "--ignore")),
        ("lraspp.pth", "labelled", (), 2, ("val/images", "SPLIT/masks")),
        ("lraspp.pth", "digits", (), 2, ("a class for each pixel", "images with masks")),
        ("lraspp.pth", "voc", (), 2, ("voc needs the folder", "--data-path")),
        ("lraspp.pth", "coco", ("--data-path", "."), 2, ()),
        ("lraspp.pth", "drawn", ("--split", "vla"), 2, ("vla/images", "'val'")),
        ("classifier.pth", "drawn", (), 2, ("a class for each image", "the data has images with masks")),
        ("classifier.pth", "voc", ("--data-path", "."), 2, ("a class for each image",)),
        ("classifier.pth", "labelled", ("--ignore", 9), 2, ("--ignore is for masks", "--ignore")),
        ("classifier.pth", "digits", ("--ignore", -1), 2, ("--ignore",)),
    ],
)
def test_refusals(
    home: Path, model: str, data: str, arguments: tuple[object, ...], code: int, words: tuple[str, ...]
) -> None:
    outcome = evaluate(home, model, data, *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in " ".join(outcome.err.split())


def test_help_names_both_tasks() -> None:
    shown = succeed("eval", "--help").out
    assert all(word in shown for word in ("mean IoU", "Top-1", "--ignore"))


def test_the_size_that_weights_are_tested_at_is_taken_when_asked(tmp_path: Path) -> None:
    import timm
    from timm.models._hub import save_for_hf

    overlay = {"input_size": (3, 32, 32), "test_input_size": (3, 48, 48), "test_crop_pct": 1.0}
    save_for_hf(timm.create_model("test_resnet", num_classes=10, pretrained_cfg_overlay=overlay), str(tmp_path / "hub"))
    command = ("eval", tmp_path / "hub", "--data", "digits", "--device", "cpu", "--workers", 0)
    usual, tested = (succeed(*command, *more, "--json").document for more in ((), ("--test-size",)))
    assert (usual["image_size"], tested["image_size"]) == ([32, 32], [48, 48])
    assert [note for note in usual["notes"] if "--test-size" in note]
    assert not [note for note in tested["notes"] if "--test-size" in note]
    assert spgsurgeon(*command, "--test-size", "--image-size", 64).code == 2
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), tmp_path / "plain.pth")
    plain = ("eval", tmp_path / "plain.pth", "--arch", TINY_CLASSIFIER, *command[2:], "--test-size")
    assert spgsurgeon(*plain).code == 2


def test_classes_and_confusions_are_there_for_scripts(home: Path) -> None:
    document = evaluate(home, "classifier.pth", "labelled", "--json").document
    names = ["class0000", "class0001"]
    assert [one["class"] for one in document["classes"]] == names
    assert [one["units"] for one in document["classes"]] == [2, 2]
    matrix = np.array(document["confusion_matrix"])
    assert matrix.sum(1).tolist() == [2, 2]
    assert 100 * matrix.trace() / 4 == document["top1"]
    wrong = {(names.index(one["class"]), names.index(one["predicted"])): one["units"] for one in document["confusions"]}
    assert wrong == {(row, column): matrix[row, column] for row, column in ((0, 1), (1, 0)) if matrix[row, column]}


def test_masks_have_them_too(home: Path) -> None:
    document = evaluate(home, "lraspp.pth", "drawn", "--ignore", 9, "--image-size", 32, "--json").document
    matrix = np.array(document["confusion_matrix"])
    hits = matrix.diagonal()
    unions = matrix.sum(0) + matrix.sum(1) - hits
    scored = [100 * hit / union if union else None for hit, union in zip(hits, unions, strict=True)]
    assert list(document["class_iou"].values()) == pytest.approx(scored)
    assert document["classes"][2]["accuracy"] is None


@pytest.fixture(scope="module")
def ten(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """The command that scores a classifier of ten classes."""
    import timm

    path = tmp_path_factory.mktemp("ten") / "ten.pth"
    torch.manual_seed(0)
    torch.save(timm.create_model("test_resnet", num_classes=10).state_dict(), path)
    return ("eval", path, "--arch", TINY_CLASSIFIER, "--data", "digits", "--device", "cpu", "--image-size", 32)


def test_the_console_shows_the_worst_classes_and_all_if_asked(ten: tuple[object, ...]) -> None:
    short, whole = succeed(*ten).out, succeed(*ten, "--by-class").out
    assert "worst 5 of 10" in short
    assert "taken for" in short
    assert "worst" not in whole
    assert len(short.splitlines()) < len(whole.splitlines())


def test_the_matrix_as_csv(ten: tuple[object, ...]) -> None:
    document, rows = succeed(*ten, "--json").document, list(csv.reader(succeed(*ten, "--csv").out.splitlines()))
    assert rows[0][1:] == [row[0] for row in rows[1:]] == [str(digit) for digit in range(10)]
    assert [list(map(int, row[1:])) for row in rows[1:]] == document["confusion_matrix"]


def test_too_many_classes_for_a_matrix_are_said(ten: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confusion, "MOST_CLASSES", 9)
    document = succeed(*ten, "--json").document
    assert document["confusion_matrix"] is None
    assert [note for note in document["notes"] if "too many for a confusion matrix" in note]
    assert sum(one["units"] for one in document["classes"]) == document["samples"]
    refused = spgsurgeon(*ten, "--csv", "--json")
    assert refused.code == 0  # with --json there is nothing to refuse
    assert spgsurgeon(*ten, "--csv").code == 2
