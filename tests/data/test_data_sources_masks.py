"""Images with masks: folders, VOC, COCO; pairs, ids, and what each of them refuses."""

import importlib.util
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from spgsurgeon.data.loading.loader import EvaluationBatches
from spgsurgeon.data.sources.masks import MaskSource, holds_masks
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import check_same_classes
from spgsurgeon.data.transforms.joint import joint_evaluation_transform
from spgsurgeon.data.transforms.masks import IGNORED, read_mask
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.models.preprocessing import Preprocessing

IDS = np.array([[0, 1, 2], [2, 255, 1]], dtype=np.uint8)
EXPECTED = [[0, 1, 2], [2, IGNORED, 1]]


def write_pair(images: Path, masks: Path, name: str, ids: Any = IDS, ending: str = ".png") -> None:
    for folder in (images, masks):
        folder.mkdir(parents=True, exist_ok=True)
    height, width = np.asarray(ids).shape[:2]
    Image.new("RGB", (width, height), (9, 8, 7)).save(images / f"{name}{ending}")
    Image.fromarray(np.asarray(ids)).save(masks / f"{name}.png")


def folder_of(root: Path, split: str = "train", **ids: Any) -> Path:
    for name, of_picture in (ids or {"b": IDS, "a": IDS}).items():
        write_pair(root / split / "images", root / split / "masks", name, of_picture)
    return root


def refusal(source: str, path: Path | None, split: str = "train", **options: Any) -> tuple[str, str]:
    with pytest.raises(UsageError) as caught:
        open_source(source, path, split, **options)
    assert caught.value.exit_code == 2
    return caught.value.message, str(caught.value.hint)


def unusable(source: MaskSource) -> str:
    """Return what the loader says of a source's first sample, hint included."""
    transform = joint_evaluation_transform(Preprocessing(input_size=(3, 4, 4)))
    with pytest.raises(DataError) as caught:
        list(EvaluationBatches(source, transform, batch_size=1, workers=0))
    assert caught.value.message.startswith(f"can't use {source.describe(0)}: ")
    return f"{caught.value.message} ({caught.value.hint})"


# Folders


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp", ".bmp"])
@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_a_folder(tmp_path: Path, layout: str, ending: str) -> None:
    folders = [tmp_path / layout.format(split="train", kind=kind) for kind in ("images", "masks")]
    for name in ("b", "a"):
        write_pair(folders[0], folders[1], name, ending=ending)
    (folders[0] / ".DS_Store").write_bytes(b"")
    (folders[0] / "notes.txt").write_text("these are images")
    assert holds_masks(tmp_path, "train")
    source = open_source("masks", tmp_path, "train", classes=3)
    assert (len(source), source.classes) == (2, ("0", "1", "2"))
    image, mask = source.read(1)
    assert (image.mode, image.size) == ("RGB", (3, 2))
    assert (mask.dtype, mask.tolist()) == (torch.int64, EXPECTED)
    assert source.describe(1) == str(folders[0] / f"b{ending}")


def write_grey(path: Path, bits: int, rows: list[list[int]]) -> None:
    """Write a PNG of `bits` bits of grey, which Pillow reads but does not write."""
    packed = b""
    for row in rows:
        text = "".join(f"{value:0{bits}b}" for value in row)
        packed += b"\0" + int(text, 2).to_bytes(len(text) // 8, "big")
    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(packed)), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_masks_of_few_bits_of_grey_are_class_ids_too(bits: int, tmp_path: Path) -> None:
    rows = [[value % 2**bits for value in range(16)], [2**bits - 1] * 16]
    write_grey(tmp_path / "mask.png", bits, rows)
    assert read_mask(tmp_path / "mask.png", 16).tolist() == rows


@pytest.mark.parametrize("kind", ["L", "P", "I;16"])
def test_masks_of_every_depth(tmp_path: Path, kind: str) -> None:
    write_pair(tmp_path / "images", tmp_path / "masks", "a")
    if kind == "P":
        image = Image.new("P", (3, 2))
        image.putpalette([level for level in range(256) for _ in "rgb"])
        image.frombytes(IDS.tobytes())
    else:
        image = Image.fromarray(IDS.astype(np.uint16) if kind == "I;16" else IDS)
    image.save(tmp_path / "masks" / "a.png")
    with Image.open(tmp_path / "masks" / "a.png") as saved:
        assert saved.mode == kind
    assert open_source("masks", tmp_path, "", classes=3).read(0)[1].tolist() == EXPECTED


def test_more_than_256_classes(tmp_path: Path) -> None:
    source = open_source("masks", folder_of(tmp_path, a=np.array([[256, 300]], dtype=np.uint16)), "train", classes=301)
    assert source.read(0)[1].tolist() == [[256, 300]]


def test_255_is_a_class_where_there_are_more(tmp_path: Path) -> None:
    folder_of(tmp_path, a=np.array([[255, 256]], dtype=np.uint16))
    assert open_source("masks", tmp_path, "train", classes=300).read(0)[1].tolist() == [[255, 256]]


def test_ids_to_ignore(tmp_path: Path) -> None:
    source = open_source("masks", folder_of(tmp_path), "train", classes=2, ignore=[2])
    assert source.read(0)[1].tolist() == [[0, 1, IGNORED], [IGNORED, IGNORED, 1]]


def test_class_names(tmp_path: Path) -> None:
    folder_of(tmp_path)
    named = open_source("masks", tmp_path, "train", classes=("sky", "road", "tree"))
    assert named.classes == ("sky", "road", "tree")
    assert "classes.txt" in refusal("masks", tmp_path)[1]
    (tmp_path / "classes.txt").write_text("sky\nroad\n tree \n\n")
    assert open_source("masks", tmp_path, "train").classes == named.classes
    check_same_classes(named, open_source("masks", tmp_path, "train"))
    with pytest.raises(UsageError, match="only in training: 'tree'"):
        check_same_classes(named, open_source("masks", tmp_path, "train", classes=("sky", "road")))


@pytest.mark.parametrize(
    ("classes", "words"),
    [(0, "there has to be one"), (("a", ""), "need a name each"), (("a", "b", "a"), "'a' more than once")],
)
def test_classes_that_can_not_be(tmp_path: Path, classes: Any, words: str) -> None:
    assert words in refusal("masks", folder_of(tmp_path), classes=classes)[0]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    folder_of(tmp_path)
    assert "needs a path" in refusal("masks", None)[0]
    assert "does not exist" in refusal("masks", tmp_path / "nowhere")[0]
    message, hint = refusal("masks", tmp_path, "trian", classes=3)
    assert "trian/images" in message
    assert "'train'" in hint
    assert not holds_masks(tmp_path, "trian")
    (tmp_path / "val" / "images").mkdir(parents=True)
    message, hint = refusal("masks", tmp_path, "val", classes=3)
    assert "val/masks" in message
    assert "SPLIT/masks" in hint
    (tmp_path / "val" / "masks").mkdir()
    assert "holds no image" in refusal("masks", tmp_path, "val", classes=3)[0]


@pytest.mark.parametrize(("missing", "left"), [("images", "mask"), ("masks", "image")])
def test_pairs_that_are_none(tmp_path: Path, missing: str, left: str) -> None:
    folder_of(tmp_path, **dict.fromkeys("abcdef", IDS))
    for name in "bcdef":
        (tmp_path / "train" / missing / f"{name}.png").unlink()
    message, hint = refusal("masks", tmp_path, classes=3)
    assert f"without {'an image' if left == 'mask' else 'a mask'}" in message
    assert "'b.png', 'c.png', 'd.png' and 2 more" in message
    assert "same name" in hint


def test_two_pictures_of_one_name(tmp_path: Path) -> None:
    folder_of(tmp_path)
    Image.new("RGB", (3, 2)).save(tmp_path / "train" / "images" / "a.jpg")
    assert "both a.jpg and a.png" in refusal("masks", tmp_path, classes=3)[0]


def test_a_class_that_there_is_not(tmp_path: Path) -> None:
    message = unusable(open_source("masks", folder_of(tmp_path), "train", classes=2))
    assert (
        "masks/a.png has the class id 2, classes are 0 to 1 (repair it, say the class that the value stands for"
        in message
    )


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    folder_of(tmp_path)
    Image.new("RGB", (4, 2)).save(tmp_path / "train" / "images" / "a.png")
    message = unusable(open_source("masks", tmp_path, "train", classes=3))
    assert "it has 4 x 2 pixels, its mask" in message
    assert "masks/a.png 3 x 2 (repair or remove it" in message


def test_a_mask_in_colour(tmp_path: Path) -> None:
    message = unusable(open_source("masks", folder_of(tmp_path, a=np.zeros((2, 3, 3), np.uint8)), "train", classes=3))
    assert "masks/a.png is an image in RGB (a mask has a class id for each pixel" in message


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_a_damaged_file(tmp_path: Path, kind: str) -> None:
    noise = np.random.default_rng(0).integers(0, 3, (64, 64)).astype(np.uint8)
    path = folder_of(tmp_path, a=noise) / "train" / kind / "a.png"
    path.write_bytes(path.read_bytes()[:100])
    assert "Traceback" not in unusable(open_source("masks", tmp_path, "train", classes=3))


# VOC


def voc(root: Path) -> Path:
    base = root / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation").mkdir(parents=True)
    for split, names in {"train": ["2007_1"], "val": ["2007_2", "2007_3"]}.items():
        (base / "ImageSets" / "Segmentation" / f"{split}.txt").write_text("\n".join(names) + "\n")
        for name in names:
            write_pair(base / "JPEGImages", base / "SegmentationClass", name, IDS + np.uint8(0), ".jpg")
    return root


def test_voc(tmp_path: Path) -> None:
    source = open_source("voc", voc(tmp_path), "val")
    assert (len(source), len(source.classes)) == (2, 21)
    assert (source.classes[0], source.classes[15], source.classes[20]) == ("background", "person", "tvmonitor")
    assert source.read(1)[1].tolist() == EXPECTED
    assert source.describe(1).endswith("JPEGImages/2007_3.jpg")
    assert "no split 'test'" in refusal("voc", tmp_path, "test")[0]
    assert "brings its 21 classes" in refusal("voc", tmp_path, classes=21)[0]
    (tmp_path / "empty").mkdir()
    message, hint = refusal("voc", tmp_path / "empty")
    assert "no VOC 2012" in message
    assert "nothing is downloaded" in hint
    assert "ImageSets/Segmentation/trainval.txt" in refusal("voc", tmp_path, "trainval")[1]


# COCO

# pycocotools 2.0 and NumPy 2 do not agree on how arrays are made of its masks
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
needs_pycocotools = pytest.mark.skipif(importlib.util.find_spec("pycocotools") is None, reason="needs pycocotools")
PERSON, CAT, KITE = 1, 17, 38  # the last is not among VOC's classes


def square(number: int, image: int, category: int, corner: tuple[int, int], size: int) -> dict[str, Any]:
    x, y = corner
    polygon = [x, y, x + size, y, x + size, y + size, x, y + size]
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "segmentation": [polygon],
        "area": size * size,
        "bbox": [x, y, size, size],
        "iscrowd": 0,
    }


def coco(root: Path, split: str = "train2017") -> Path:
    annotations = [
        square(1, 1, PERSON, (0, 0), 40),
        square(2, 1, CAT, (30, 30), 20),  # over the person's corner
        square(3, 1, KITE, (50, 0), 10),
        square(4, 2, KITE, (0, 0), 50),
        square(5, 3, PERSON, (0, 0), 10),
    ]
    runs = [70 * 60 + 50, *([10, 50] * 9), 10]  # down the columns: the lower right corner, 10 x 10
    crowd = {"segmentation": {"size": [60, 80], "counts": runs}, "iscrowd": 1}
    annotations.append(square(6, 1, PERSON, (0, 0), 1) | crowd)
    document = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "height": 60, "width": 80} for n in (1, 2, 3)],
        "annotations": annotations,
        "categories": [{"id": PERSON, "name": "person"}, {"id": CAT, "name": "cat"}, {"id": KITE, "name": "kite"}],
    }
    (root / split).mkdir(parents=True)
    (root / "annotations").mkdir(exist_ok=True)
    for record in document["images"]:
        Image.new("RGB", (80, 60)).save(root / split / record["file_name"])
    (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(document))
    return root


@needs_pycocotools
def test_coco_masks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = open_source("coco", coco(tmp_path), "train")
    assert capsys.readouterr().out == ""
    image, mask = source.read(0)
    assert (image.size, mask.shape, mask.dtype) == ((80, 60), (60, 80), torch.int64)
    expected = torch.zeros(60, 80, dtype=torch.int64)
    expected[:40, :40] = 15
    expected[30:50, 30:50] = 8
    expected[30:40, 30:40] = IGNORED  # where two instances overlap
    expected[50:, 70:] = 15
    assert torch.equal(mask, expected)
    assert source.describe(0) == str(tmp_path / "train2017" / "1.jpg")
    assert (len(source.classes), source.classes[8], source.classes[15]) == (21, "cat", "person")


@needs_pycocotools
def test_coco_training_pictures_have_a_thousand_pixels_of_the_classes(tmp_path: Path) -> None:
    coco(tmp_path)
    coco(tmp_path, "val2017")
    assert len(open_source("coco", tmp_path, "train")) == len(open_source("coco", tmp_path, "train2017")) == 1
    val = open_source("coco", tmp_path, "val")
    assert len(val) == 3
    assert val.read(1)[1].unique().tolist() == [0]  # nothing of the classes


@needs_pycocotools
def test_coco_refusals(tmp_path: Path) -> None:
    coco(tmp_path)
    assert "'train2017'" in refusal("coco", tmp_path, "trian2017")[1]
    assert "brings its 21 classes" in refusal("coco", tmp_path, classes=21)[0]
    (tmp_path / "val2017").mkdir()
    assert "instances_val2017.json" in refusal("coco", tmp_path, "val")[0]
    for content, words in {"{": "holds no instances", "[]": "holds no instances", "{}": "names no image"}.items():
        (tmp_path / "annotations" / "instances_val2017.json").write_text(content)
        assert f"instances_val2017.json {words}" in refusal("coco", tmp_path, "val")[0]
    Image.new("RGB", (8, 6)).save(tmp_path / "train2017" / "1.jpg")
    assert "it has 8 x 6 pixels, its annotations 80 x 60" in unusable(open_source("coco", tmp_path, "train"))


def spoil(root: Path, **changes: Any) -> MaskSource:
    """Change the first annotation of a val split (or, with `image`, the first image's record), and open it."""
    path = coco(root, "val2017") / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    record = document["images" if changes.pop("image", False) else "annotations"][0]
    record.update(changes)
    for key in [key for key, value in changes.items() if value is None]:
        del record[key]
    path.write_text(json.dumps(document))
    return open_source("coco", root, "val")


@needs_pycocotools
@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[0, 0, 1e9, 0, 1e9, 1e9]], "its annotation 1 has a polygon that is none, or lies far outside"),
        ([[0, 0, float("nan"), 0, 5, 5]], "its annotation 1 has a polygon"),
        ([[0, 0, 5, 5]], "its annotation 1 has a polygon"),
        ({"size": [100_000, 100_000], "counts": [5, 5]}, "its annotation 1 is drawn for [100000, 100000] pixels"),
        ([], "its annotation 1 has no segmentation"),
        (None, "its annotation 1 has no segmentation"),
    ],
)
def test_instances_that_pycocotools_would_draw_outside_its_memory(
    segmentation: Any, message: str, tmp_path: Path
) -> None:
    assert message in unusable(spoil(tmp_path, segmentation=segmentation))


@needs_pycocotools
def test_sizes_are_compared_before_anything_is_drawn(tmp_path: Path) -> None:
    assert "annotations 500000 x 60" in unusable(spoil(tmp_path, image=True, width=500_000))


@needs_pycocotools
@pytest.mark.parametrize("name", ["../../secret.jpg", "/etc/passwd", None, 3])
def test_names_that_lead_out_of_the_folder_or_nowhere(name: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no instances as COCO's do"):
        spoil(tmp_path, image=True, file_name=name)


@needs_pycocotools
def test_annotations_without_an_area(tmp_path: Path) -> None:
    path = coco(tmp_path) / "annotations" / "instances_train2017.json"
    path.write_text(path.read_text().replace('"area"', '"aera"'))
    assert "holds no instances" in refusal("coco", tmp_path)[0]


def test_coco_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message, hint = refusal("coco", tmp_path)
    assert message == "package pycocotools is not installed"
    assert hint == "pip install 'spgsurgeon[coco]'"


def test_an_unknown_source(tmp_path: Path) -> None:
    message, hint = refusal("mask", tmp_path)
    assert (message, hint.partition(";")[0]) == ("'mask' is not a data source", "did you mean 'masks'?")
