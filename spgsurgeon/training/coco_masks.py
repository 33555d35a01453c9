"""COCO's instances as masks with VOC's classes, as torchvision's segmentation reference trains and scores on them."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CocoDetection

from spgsurgeon.errors import UsageError
from spgsurgeon.training.masks import BORDER, settle
from spgsurgeon.training.sources import Source, nearby_folders

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""By class id, as torchvision's weights name them but for the background, which these call `__background__`."""
VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category of each class, as torchvision's references/segmentation/coco_utils.py has them; none for 0."""
_CLASS_OF = {category: label for label, category in enumerate(VOC_CATEGORIES)}
_SMALLEST_AREA = 1000  # pixels; training pictures with no more of the classes are left out there
_FOLDERS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True)
class _CocoMasks:
    """Pictures of COCO that have a mask, `ids` of them, drawn from the polygons of their instances."""

    name: str
    dataset: Any
    ids: tuple[int, ...]
    ignore: tuple[int, ...]
    classes: tuple[str, ...] = VOC_CLASSES

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        path = self.describe(index)
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        mask = self._draw(index, image)
        return image, settle(torch.from_numpy(mask), len(self.classes), self.ignore, "its mask")

    def describe(self, index: int) -> str:
        return str(Path(self.dataset.root) / self.dataset.coco.imgs[self.ids[index]]["file_name"])

    def _draw(self, index: int, image: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return class ids [H, W], BORDER where instances overlap."""
        ids = np.zeros((image.height, image.width), dtype=np.int64)
        drawn = np.zeros_like(ids)
        for annotation in _of_our_classes(self.dataset.coco, self.ids[index]):
            instance = self.dataset.coco.annToMask(annotation).astype(bool)
            if instance.shape != ids.shape:
                height, width = instance.shape
                raise ValueError(f"it has {image.width} x {image.height} pixels, its annotations {width} x {height}")
            ids[instance] = _CLASS_OF[annotation["category_id"]]
            drawn += instance
        ids[drawn > 1] = BORDER
        return ids


def open_coco(root: Path, split: str, ignore: Iterable[int] = ()) -> Source[Tensor]:
    """Open `root/SPLIT2017` with `root/annotations/instances_SPLIT2017.json`; `split` is train, val or a folder's name.

    Training pictures with no more than 1000 annotated pixels of VOC's classes are left out. Raises UsageError where
    pycocotools is not installed, or the files are not there or not COCO's.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise UsageError("package pycocotools is not installed", hint="pip install 'spgsurgeon[coco]'")
    folder = root / _FOLDERS.get(split, split)
    annotations = root / "annotations" / f"instances_{folder.name}.json"
    if not folder.is_dir():
        raise UsageError(f"no folder {folder} for the split {split!r}", hint=nearby_folders(root, folder.name))
    if not annotations.is_file():
        raise UsageError(f"no annotations {annotations} for the split {split!r}")
    try:
        with redirect_stdout(io.StringIO()):  # which it tells how long it takes
            dataset = CocoDetection(str(folder), str(annotations))
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UsageError(f"{annotations} holds no instances as COCO's do: {error!r}") from error
    ids = dataset.ids
    if folder.name.startswith("train"):
        ids = [number for number in ids if _area(dataset.coco, number) > _SMALLEST_AREA]
    if not ids:
        raise UsageError(f"{annotations} names no picture to use")
    return _CocoMasks(f"coco ({split})", dataset, tuple(ids), tuple(ignore))


def _of_our_classes(coco: Any, image: int) -> list[dict[str, Any]]:
    return [annotation for annotation in coco.imgToAnns[image] if annotation["category_id"] in _CLASS_OF]


def _area(coco: Any, image: int) -> float:
    return math.fsum(annotation["area"] for annotation in _of_our_classes(coco, image))
