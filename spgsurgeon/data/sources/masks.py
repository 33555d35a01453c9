"""Where images with masks come from: folders of images and masks, VOC, and COCO with VOC's classes.

Each form has an opener here, which `forms.SOURCES` names.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.datasets import VOCSegmentation

from spgsurgeon.data.sources.class_names import class_names
from spgsurgeon.data.sources.coco import VOC_CLASSES, open_coco
from spgsurgeon.data.sources.image_decoding import ENDINGS, decode
from spgsurgeon.data.sources.image_listing import LeftOut
from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.source import Source, existing_folder, listing, nearby_folders, printable
from spgsurgeon.data.transforms.masks import BORDER, read_mask
from spgsurgeon.errors import UsageError

MaskSource = Source[Tensor]
"""Images with masks: int64 [H, W] of the image's size, the class of each pixel or `masks.IGNORED`."""
_VOC_SPLITS = ("train", "val", "trainval")
_NAMED = 3
_MASK_ENDINGS = (".png",)


def holds_masks(path: str | Path, split: str) -> bool:
    """Return whether the folder is laid out as `masks` reads it."""
    return _image_and_mask_folders(Path(path).expanduser(), split) is not None


@dataclass(frozen=True)
class _MaskFiles:
    """Pairs of files: an image and its mask."""

    name: str
    classes: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]
    reading: Reading
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


def open_folder(source: str, path: str | Path | None, split: str, reading: Reading) -> MaskSource:
    """Open images and PNG masks of the same names, in `path/split/{images,masks}` or `path/{images,masks}/split`.

    The mask values in `reading.ignore`, and 255, stand for no class; `values` says the class of those that are not
    class numbers. Raises UsageError for what is not there, and for images and masks that don't make pairs.
    """
    root = existing_folder(path, source)
    folders = _image_and_mask_folders(root, split)
    if folders is None:
        there = "images with masks lie in SPLIT/images and SPLIT/masks, or in images/SPLIT and masks/SPLIT"
        raise UsageError(
            f"no folders {root / split / 'images'} and {root / split / 'masks'}",
            hint=there if (root / split).is_dir() else nearby_folders(root, split),
        )
    name = str(folders[0].parent if folders[0].name == "images" else root / split)
    names = class_names(root, reading.classes)
    _check_values(reading, len(names))
    assumed = len(names) <= BORDER and BORDER not in reading.ignore and BORDER not in reading.values
    left_out = [LeftOut(endings, folder) for folder, endings in zip(folders, (ENDINGS, _MASK_ENDINGS), strict=True)]
    pairs = _pairs(*folders, *left_out)
    notes = tuple(note for one in left_out for note in one.notes())
    return _MaskFiles(printable(name), names, pairs, reading, notes, border_assumed=assumed)


def _check_values(reading: Reading, classes: int) -> None:
    """Raise UsageError if mask values stand for a class that there is not, or for none as well."""
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
    """Return the images and the masks of the same names, in their order. Raises UsageError if one has no other."""
    pictures, drawn = _by_stem(images, images_left_out), _by_stem(masks, masks_left_out)
    _check_paired(pictures, drawn, f"images in {images} without a mask in {masks}")
    _check_paired(drawn, pictures, f"masks in {masks} without an image in {images}")
    if not pictures:
        raise UsageError(f"{images} holds no image", hint=f"it reads {', '.join(ENDINGS)}")
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


def open_voc(source: str, path: str | Path | None, split: str, reading: Reading) -> MaskSource:
    """Open VOC 2012 under the root that torchvision's VOCSegmentation takes; it brings its 21 classes."""
    root = existing_folder(path, source)
    _refuse_classes(source, reading)
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


def open_coco_split(source: str, path: str | Path | None, split: str, reading: Reading) -> MaskSource:
    """Open COCO 2017 with VOC's 21 classes, which it brings."""
    root = existing_folder(path, source)
    _refuse_classes(source, reading)
    return open_coco(root, split, reading.ignore, reading.decoding)


def _refuse_classes(source: str, reading: Reading) -> None:
    if reading.values:
        raise UsageError(f"{source} brings its mask values", hint="leave data.mask_values out")
    if reading.classes is not None:
        raise UsageError(f"{source} brings its {len(VOC_CLASSES)} classes", hint="leave data.classes out")
