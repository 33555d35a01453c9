"""What loaders notice of the images and masks they read, and what is said of it in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from odd_images import DEEP, ORDINARY, encoded, of_mode
from PIL import Image

from spgsurgeon.data.cache.caching import Cache
from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.loading.seen import check_drawn, said_of_masks, said_of_traits
from spgsurgeon.data.sources.image_decoding import Decoding, Traits
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.subsets import Subset, hold_out
from spgsurgeon.data.transforms.augmentation import Augmentation, evaluation_transform, training_transform
from spgsurgeon.data.transforms.joint import joint_evaluation_transform, joint_training_transform
from spgsurgeon.errors import DataError
from spgsurgeon.models.inputs import IMAGES
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.tasks.segmentation import SegmentationTally

PREPROCESSING = Preprocessing(input_size=(3, 8, 8))
UPRIGHT, TURNED = (ORDINARY[name][0] for name in ("jpeg turned 1", "jpeg turned 6"))
ODD = [UPRIGHT, TURNED, encoded(of_mode("RGBA"), "PNG"), DEEP["png"][0], TURNED, b"not an image"]
TRAITS = [Traits(0), Traits.ORIENTED, Traits.TRANSPARENT, Traits.DEEP, Traits.ORIENTED, Traits(0)]


@pytest.fixture
def folder(tmp_path: Path) -> Any:
    for label in "ab":
        (tmp_path / label).mkdir()
        for number, content in enumerate(ODD):
            (tmp_path / label / f"{number}.png").write_bytes(content)
    return open_source("folder", tmp_path, "")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, Cache(), Cache(torch.device("cpu"))], ids=["read", "memory", "device"])
def test_evaluation_notices_each_image(folder: Any, workers: int, cache: Cache | None) -> None:
    transform = evaluation_transform(PREPROCESSING)
    batches = EvaluationBatches(folder, transform, batch_size=5, workers=workers, unreadable="skip", cache=cache)
    for _ in range(2):  # twice does not count twice
        assert sum(len(batch.targets) for batch in batches) == 10
        assert batches.traits.tolist() == [*TRAITS, *TRAITS]
    batches.close()


@pytest.mark.parametrize("cache", [None, Cache(), Cache(torch.device("cpu"))], ids=["read", "memory", "device"])
def test_training_notices_what_it_has_read(folder: Any, cache: Cache | None) -> None:
    transform = training_transform(PREPROCESSING, Augmentation(crop="resize"))
    batches = TrainingBatches(folder, transform, batch_size=4, workers=0, seed=0, unreadable="skip", cache=cache)
    for epoch in range(3):
        for _ in batches.epoch(epoch):
            pass
    assert batches.traits.tolist() == [*TRAITS, *TRAITS]


def test_a_cache_in_a_folder_keeps_what_was_noticed(folder: Any, tmp_path: Path) -> None:
    for _ in range(2):
        transform = evaluation_transform(PREPROCESSING)
        cache = Cache(folder=tmp_path / "decoded")
        batches = EvaluationBatches(folder, transform, batch_size=5, workers=0, unreadable="skip", cache=cache)
        assert len(list(batches)) == 3
        assert batches.traits.tolist() == [*TRAITS, *TRAITS]


def test_a_cache_in_a_folder_is_of_one_range(tmp_path: Path) -> None:
    for label in "ab":
        (tmp_path / "data" / label).mkdir(parents=True)
        (tmp_path / "data" / label / "0.png").write_bytes(DEEP["png"][0])
    images = []
    for decoding in (Decoding(), Decoding(value_range=(0, 1000)), Decoding()):
        source = open_source("folder", tmp_path / "data", "", decoding=decoding)
        transform = evaluation_transform(PREPROCESSING)
        cache = Cache(folder=tmp_path / "decoded")
        images.append(
            next(iter(EvaluationBatches(source, transform, batch_size=2, workers=0, cache=cache))).inputs[IMAGES]
        )
    assert torch.equal(images[0], images[2])
    assert not torch.equal(images[0], images[1])


def test_what_is_said_of_it(folder: Any) -> None:
    said = said_of_traits(np.array(TRAITS * 2, dtype=np.uint8), folder)
    assert len(said) == 3
    assert said[0].startswith(f"4 of the 12 samples of {folder.name} carry an EXIF orientation, which was not applied")
    assert said[1].startswith("2 of the 12 samples")
    assert "transparent" in said[1]
    assert "0 to 65535" in said[2]
    assert said_of_traits(np.zeros(12, dtype=np.uint8), folder) == []
    held = hold_out(folder, 0.5)[1]
    assert said_of_traits(np.array([1] * len(held), dtype=np.uint8), held)[0].startswith("6 of the 6 samples")


# Masks


def masks_of(root: Path, *masks: Any, **options: Any) -> Any:
    for kind in ("images", "masks"):
        (root / "val" / kind).mkdir(parents=True)
    for number, mask in enumerate(masks):
        ids = np.asarray(mask, dtype=np.uint8)
        Image.fromarray(np.stack([ids] * 3, axis=-1)).save(root / "val" / "images" / f"{number}.png")
        Image.fromarray(ids).save(root / "val" / "masks" / f"{number}.png")
    return open_source("masks", root, "val", **options)


BINARY = np.zeros((8, 8), np.uint8)
BINARY[:4] = 255


def drawn_by_evaluation(source: Any) -> list[int]:
    tally = SegmentationTally(ONE)
    batches = EvaluationBatches(source, joint_evaluation_transform(PREPROCESSING), batch_size=2, workers=0)
    for batch in batches:
        tally.add(torch.zeros(len(batch.targets), len(source.classes), *batch.inputs[IMAGES].shape[2:]), batch.targets)
    tally.scores()
    return tally.drawn()


class _One:
    device = torch.device("cpu")

    def sum(self, tensor: Any) -> Any:
        return tensor

    def largest(self, number: int) -> int:
        return number


ONE: Any = _One()


def test_evaluation_counts_pixels_by_class_and_those_ignored(tmp_path: Path) -> None:
    other = np.ones((8, 8), np.uint8)
    source = masks_of(tmp_path, BINARY, other, classes=3)
    assert drawn_by_evaluation(source) == [32, 64, 0, 32]


def test_training_counts_whole_masks_once(tmp_path: Path) -> None:
    other = np.ones((8, 8), np.uint8)
    source = masks_of(tmp_path, BINARY, other, classes=3)
    transform = joint_training_transform(PREPROCESSING, Augmentation(crop="random-scale"))  # which cuts and pads
    for workers in (0, 1):
        batches = TrainingBatches(source, transform, batch_size=1, workers=workers, seed=0)
        assert batches.drawn is None
        for epoch in range(3):
            for _ in batches.epoch(epoch):
                pass
        assert batches.drawn is not None
        assert batches.drawn.tolist() == [32, 64, 0, 32]
        batches.close()


def test_values_that_stand_for_classes(tmp_path: Path) -> None:
    source = masks_of(tmp_path, BINARY, classes=2, values={255: 1})
    assert source.read(0)[1].unique().tolist() == [0, 1]
    assert drawn_by_evaluation(source) == [32, 32, 0]


def test_values_may_change_places(tmp_path: Path) -> None:
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    source = masks_of(tmp_path, mask, classes=3, values={0: 1, 1: 0, 2: 2})
    assert source.read(0)[1].tolist() == [[1, 0, 2, -100]]


def test_classes_without_a_pixel_and_ignored_pixels_are_said(tmp_path: Path) -> None:
    source = masks_of(tmp_path, BINARY, classes=["ground", "object", "sky"])
    said = said_of_masks([32, 0, 0, 32], source)
    assert said == [
        f"2 of the 3 classes have no pixel in {source.name}: 'object', 'sky'",
        f"50 % of the pixels of {source.name} are ignored: they are not scored and teach nothing",
    ]
    assert said_of_masks([32, 1, 1, 0], source) == []
    assert "0.01 %" in said_of_masks([99_990, 1, 1, 10], source)[0]


@pytest.mark.parametrize(
    ("drawn", "options", "refused"),
    [
        ([32, 0, 32], {"classes": 2}, True),
        ([0, 32, 32], {"classes": 2}, True),
        ([64, 0, 0], {"classes": 2}, False),  # a split without an object: said
        ([32, 1, 32], {"classes": 2}, False),
        ([32, 0, 32], {"classes": 2, "ignore": [255]}, False),  # the user said it
        ([32, 0, 32], {"classes": 2, "values": {255: 1}}, False),
    ],
)
def test_masks_that_hold_one_class_and_255_are_refused(
    drawn: list[int], options: dict[str, Any], refused: bool, tmp_path: Path
) -> None:
    source = masks_of(tmp_path, BINARY, **options)
    if not refused:
        check_drawn(drawn, source)
        return
    with pytest.raises(DataError, match="255") as caught:
        check_drawn(drawn, Subset(source, np.array([0])))
    assert "data.mask_values={255: 1}" in str(caught.value.hint)
    assert "data.ignore=[255]" in str(caught.value.hint)
