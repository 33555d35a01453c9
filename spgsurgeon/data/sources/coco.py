"""COCO's instances as masks with VOC's classes, as torchvision's segmentation reference trains and scores on them."""

from __future__ import annotations

import importlib.util
import io
import math
from collections.abc import Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import CocoDetection

from spgsurgeon.data.sources.image_decoding import AS_IS, Decoding, decode
from spgsurgeon.data.sources.source import Source, nearby_folders, printable
from spgsurgeon.data.transforms.masks import BORDER, settle
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import extra_hint

VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""By class id, as torchvision's weights name them but for the background, which these call `__background__`."""
VOC_CATEGORIES = (0, 5, 2, 16, 9, 44, 6, 3, 17, 62, 21, 67, 18, 19, 4, 1, 64, 20, 63, 7, 72)
"""COCO's category of each class, as torchvision's references/segmentation/coco_utils.py has them; none for 0."""
_CLASS_OF = {category: label for label, category in enumerate(VOC_CATEGORIES)}
_SMALLEST_AREA = 1000  # pixels; training images with no more of the classes are left out there
_FOLDERS = {"train": "train2017", "val": "val2017"}


@dataclass(frozen=True)
class _CocoMasks:
    """Images of COCO that have a mask, `ids` of them, drawn from the polygons of their instances."""

    name: str
    dataset: Any
    ids: tuple[int, ...]
    ignore: tuple[int, ...]
    annotations: Path
    decoding: Decoding = AS_IS
    classes: tuple[str, ...] = VOC_CLASSES
    notes: tuple[str, ...] = ()
    border_assumed: bool = False

    def __len__(self) -> int:
        return len(self.ids)

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        image = decode(self._path(index), self.decoding)
        mask = self._draw(index, image)
        return image, settle(torch.from_numpy(mask), len(self.classes), self.ignore, "its mask")

    def describe(self, index: int) -> str:
        return printable(str(self._path(index)))

    def _path(self, index: int) -> Path:
        return Path(self.dataset.root) / str(self.dataset.coco.imgs[self.ids[index]].get("file_name"))

    def file_paths(self) -> Iterable[str | Path]:
        return (self.annotations, *map(self.describe, range(len(self))))

    def marks(self) -> Iterable[str]:
        return ()

    def _draw(self, index: int, image: Image.Image) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Return class ids [H, W], BORDER where instances overlap."""
        ids = np.zeros((image.height, image.width), dtype=np.int64)
        drawn = np.zeros_like(ids)
        said = self.dataset.coco.imgs[self.ids[index]]
        if (said["width"], said["height"]) != image.size:
            found = f"{said['width']} x {said['height']}"
            raise ValueError(f"it has {image.width} x {image.height} pixels, its annotations {found}")
        for annotation in _of_our_classes(self.dataset.coco, self.ids[index]):
            _check_shape(annotation, *image.size)
            instance = self.dataset.coco.annToMask(annotation).astype(bool)
            ids[instance] = _CLASS_OF[annotation["category_id"]]
            drawn += instance
        ids[drawn > 1] = BORDER
        return ids


def _check_shape(annotation: dict[str, Any], width: int, height: int) -> None:
    """Raise ValueError for an instance that pycocotools would draw outside its memory: it checks nothing itself."""
    shape, name = annotation.get("segmentation"), f"its annotation {annotation.get('id')}"
    if isinstance(shape, dict):
        if list(shape.get("size", [])) != [height, width]:
            raise ValueError(f"{name} is drawn for {shape.get('size')} pixels, not for {[height, width]}")
    elif not isinstance(shape, list) or not shape:
        raise ValueError(f"{name} has no segmentation")
    elif any(not _is_polygon(polygon, limit=4 * max(width, height)) for polygon in shape):
        raise ValueError(f"{name} has a polygon that is none, or lies far outside the image")


def _is_polygon(polygon: Any, limit: float) -> bool:
    """Return whether these are at least three points x, y within the limit."""
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(isinstance(number, int | float) and abs(number) <= limit for number in polygon)
    )


def open_coco(root: Path, split: str, ignore: Iterable[int] = (), decoding: Decoding = AS_IS) -> Source[Tensor]:
    """Open `root/SPLIT2017` with `root/annotations/instances_SPLIT2017.json`; `split` is train, val or a folder's name.

    Training images with no more than 1000 annotated pixels of VOC's classes are left out. Raises UsageError if
    pycocotools is not installed, or the files are not there or not COCO's.
    """
    if importlib.util.find_spec("pycocotools") is None:
        raise UsageError("package pycocotools is not installed", hint=extra_hint("coco"), code="missing-package")
    folder = root / _FOLDERS.get(split, split)
    annotations = root / "annotations" / f"instances_{folder.name}.json"
    if not folder.is_dir():
        raise UsageError(f"no folder {folder} for the split {split!r}", hint=nearby_folders(root, folder.name))
    if not annotations.is_file():
        raise UsageError(f"no annotations {annotations} for the split {split!r}")
    try:
        with redirect_stdout(io.StringIO()):  # which it tells how long it takes
            dataset = CocoDetection(str(folder), str(annotations))
        ids = dataset.ids
        if folder.name.startswith("train"):
            ids = [number for number in ids if _area(dataset.coco, number) > _SMALLEST_AREA]
        _check_names(dataset.coco, ids)
    except (ValueError, KeyError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise UsageError(f"{annotations} holds no instances as COCO's do: {error!r}") from error
    if not ids:
        raise UsageError(f"{annotations} names no image to use")
    return _CocoMasks(f"coco ({split})", dataset, tuple(ids), tuple(ignore), annotations, decoding)


def _check_names(coco: Any, ids: Iterable[int]) -> None:
    """Raise ValueError if an image's name leads out of its folder, or its size is not said."""
    for number in ids:
        name, width, height = (coco.imgs[number][key] for key in ("file_name", "width", "height"))
        path = PurePath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r} lies outside the folder of the images")
        if not (isinstance(width, int) and isinstance(height, int)):
            raise ValueError(f"{name!r} is {width!r} x {height!r} pixels large")


def _of_our_classes(coco: Any, image: int) -> list[dict[str, Any]]:
    return [annotation for annotation in coco.imgToAnns[image] if annotation["category_id"] in _CLASS_OF]


def _area(coco: Any, image: int) -> float:
    return math.fsum(annotation["area"] for annotation in _of_our_classes(coco, image))
