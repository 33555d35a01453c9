"""Where pictures with masks come from: folders of images and masks, VOC, and COCO with VOC's classes.

A new kind of source is one `_open_*` function and one line in `MASK_SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.datasets import VOCSegmentation

from spgsurgeon.data.sources.class_names import Classes, class_names
from spgsurgeon.data.sources.coco import VOC_CLASSES, open_coco
from spgsurgeon.data.sources.image_decoding import AS_IS, ENDINGS, Decoding, decode
from spgsurgeon.data.sources.image_listing import LeftOut
from spgsurgeon.data.sources.source import Source, existing_folder, listing, nearby_folders, printable
from spgsurgeon.data.transforms.masks import BORDER, NO_VALUES, read_mask
from spgsurgeon.errors import UsageError, did_you_mean

MaskSource = Source[Tensor]
"""Pictures with masks: int64 [H, W] of the picture's size, the class of each pixel or `masks.IGNORED`."""
_VOC_SPLITS = ("train", "val", "trainval")
_NAMED = 3
_MASK_ENDINGS = (".png",)


def open_mask_source(
    source: str,
    path: str | Path | None,
    split: str,
    *,
    classes: Classes = None,
    ignore: Iterable[int] = (),
    values: Mapping[int, int] = NO_VALUES,
    decoding: Decoding = AS_IS,
) -> MaskSource:
    """Open one split of a segmentation data set; nothing is downloaded.

    `masks` reads `path/split/images` and `path/split/masks`, or `path/images/split` and `path/masks/split`: pictures,
    and PNG masks of the same names. Its `classes` are names, or how many there are; None: the lines of
    `path/classes.txt`. `voc` is VOC 2012 under the root that torchvision's VOCSegmentation takes, `coco` COCO 2017 with
    VOC's 21 classes; both bring their classes. The mask values in `ignore`, and 255, stand for no class; `values` says
    the class of those that are not class ids (for `masks` only).

    Raises UsageError for what is not there, and for images and masks that don't make pairs.
    """
    if source not in MASK_SOURCES:
        hint = did_you_mean(source, MASK_SOURCES) or f"known forms: {', '.join(MASK_SOURCES)}"
        raise UsageError(f"unknown source of pictures with masks {source!r}", hint=hint)
    reading = MaskReading(tuple(ignore), dict(values), decoding)
    return MASK_SOURCES[source](existing_folder(path, source), split, classes, reading)


def holds_masks(path: str | Path, split: str) -> bool:
    """Return whether the folder is laid out as `masks` reads it."""
    return _image_and_mask_folders(Path(path).expanduser(), split) is not None


@dataclass(frozen=True)
class MaskReading:
    """How masks and their images are read: see `open_mask_source`."""

    ignore: tuple[int, ...] = ()
    values: Mapping[int, int] = field(default_factory=dict)
    decoding: Decoding = AS_IS


@dataclass(frozen=True)
class _MaskFiles:
    """Pairs of files: a picture and its mask."""

    name: str
    classes: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]
    reading: MaskReading
    notes: tuple[str, ...] = ()
    border_assumed: bool = False
    """Whether 255 is left out although nobody said so."""

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        path, mask_path = self.pairs[index]
        how, image = self.reading, decode(path, self.reading.decoding)
        mask = read_mask(mask_path, len(self.classes), how.ignore, image.size, values=how.values, decoding=how.decoding)
        return image, mask

    def describe(self, index: int) -> str:
        return printable(str(self.pairs[index][0]))

    def file_paths(self) -> Iterable[Path]:
        return (path for pair in self.pairs for path in pair)

    def marks(self) -> Iterable[str]:
        return ()


def _open_folder(root: Path, split: str, classes: Classes, reading: MaskReading) -> MaskSource:
    folders = _image_and_mask_folders(root, split)
    if folders is None:
        there = "pictures with masks lie in SPLIT/images and SPLIT/masks, or in images/SPLIT and masks/SPLIT"
        raise UsageError(
            f"no folders {root / split / 'images'} and {root / split / 'masks'}",
            hint=there if (root / split).is_dir() else nearby_folders(root, split),
        )
    name = str(folders[0].parent if folders[0].name == "images" else root / split)
    names = class_names(root, classes)
    _check_values(reading, len(names))
    assumed = len(names) <= BORDER and BORDER not in reading.ignore and BORDER not in reading.values
    left_out = [LeftOut(endings, folder) for folder, endings in zip(folders, (ENDINGS, _MASK_ENDINGS), strict=True)]
    pairs = _pairs(*folders, *left_out)
    notes = tuple(note for one in left_out for note in one.notes())
    return _MaskFiles(printable(name), names, pairs, reading, notes, border_assumed=assumed)


def _check_values(reading: MaskReading, classes: int) -> None:
    """Raise UsageError where mask values stand for a class that there is not, or for none as well."""
    if strange := [f"{value}: {label}" for value, label in reading.values.items() if label >= classes]:
        raise UsageError(
            f"data.mask_values has {{{', '.join(strange)}}}, and the classes are 0 to {classes - 1}",
            hint="each mask value stands for a class, counted from 0 in the order of their names",
        )
    if both := sorted({*reading.ignore} & {*reading.values}):
        raise UsageError(f"the mask value {both[0]} is ignored, and data.mask_values gives it a class", hint="say one")


def _image_and_mask_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    for images, masks in (
        (root / split / "images", root / split / "masks"),
        (root / "images" / split, root / "masks" / split),
    ):
        if images.is_dir() and masks.is_dir():
            return images, masks
    return None


def _pairs(
    images: Path, masks: Path, images_left_out: LeftOut, masks_left_out: LeftOut
) -> tuple[tuple[Path, Path], ...]:
    """Return the images and the masks of the same names, in their order. Raises UsageError where one has no other."""
    pictures, drawn = _by_stem(images, images_left_out), _by_stem(masks, masks_left_out)
    _check_paired(pictures, drawn, f"images in {images} without a mask in {masks}")
    _check_paired(drawn, pictures, f"masks in {masks} without an image in {images}")
    if not pictures:
        raise UsageError(f"{images} holds no picture", hint=f"it reads {', '.join(ENDINGS)}")
    return tuple((pictures[stem], drawn[stem]) for stem in pictures)


def _check_paired(files: dict[str, Path], others: dict[str, Path], what: str) -> None:
    if alone := [path.name for stem, path in files.items() if stem not in others]:
        raise UsageError(
            f"{what}: {listing(alone, _NAMED)}",
            hint="an image and its mask have the same name, up to the ending; masks are PNG files",
        )


def _by_stem(folder: Path, left_out: LeftOut) -> dict[str, Path]:
    """Return the files by name without ending, sorted. Raises UsageError for two of one name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not left_out.takes(path):
            continue
        if path.stem in found:
            raise UsageError(f"{folder} has both {found[path.stem].name} and {path.name}", hint="remove one of them")
        found[path.stem] = path
    return found


def _open_voc(root: Path, split: str, classes: Classes, reading: MaskReading) -> MaskSource:
    _refuse_classes("voc", classes, reading)
    if split not in _VOC_SPLITS:
        raise UsageError(f"voc has no split {split!r}", hint=f"its splits are {', '.join(_VOC_SPLITS)}")
    try:
        dataset = VOCSegmentation(str(root), year="2012", image_set=split, download=False)
    except (RuntimeError, OSError) as error:
        raise UsageError(
            f"there is no VOC 2012 in {root}: {str(error).partition('.')[0]}",
            hint=f"the folder that holds VOCdevkit/VOC2012/ImageSets/Segmentation/{split}.txt; nothing is downloaded",
        ) from error
    pairs = tuple((Path(image), Path(mask)) for image, mask in zip(dataset.images, dataset.masks, strict=True))
    return _MaskFiles(f"voc ({split})", VOC_CLASSES, pairs, reading)


def _open_coco(root: Path, split: str, classes: Classes, reading: MaskReading) -> MaskSource:
    _refuse_classes("coco", classes, reading)
    return open_coco(root, split, reading.ignore, reading.decoding)


def _refuse_classes(source: str, classes: Classes, reading: MaskReading) -> None:
    if reading.values:
        raise UsageError(f"{source} brings its mask values", hint="leave data.mask_values out")
    if classes is not None:
        raise UsageError(f"{source} brings its {len(VOC_CLASSES)} classes", hint="leave data.classes out")


MASK_SOURCES: dict[str, Callable[[Path, str, Classes, MaskReading], MaskSource]] = {
    "masks": _open_folder,
    "voc": _open_voc,
    "coco": _open_coco,
}
