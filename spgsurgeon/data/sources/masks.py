"""Where pictures with masks come from: folders of images and masks, VOC, and COCO with VOC's classes.

A new kind of source is one `_open_*` function and one line in `MASK_SOURCES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.datasets import VOCSegmentation
from torchvision.datasets.folder import IMG_EXTENSIONS

from spgsurgeon.data.sources.class_names import Classes, class_names
from spgsurgeon.data.sources.coco import VOC_CLASSES, open_coco
from spgsurgeon.data.sources.source import Source, as_rgb, existing_folder, listing, nearby_folders
from spgsurgeon.data.transforms.masks import read_mask
from spgsurgeon.errors import UsageError, did_you_mean

MaskSource = Source[Tensor]
"""Pictures with masks: int64 [H, W] of the picture's size, the class of each pixel or `masks.IGNORED`."""
_VOC_SPLITS = ("train", "val", "trainval")
_NAMED = 3


def open_mask_source(
    source: str, path: str | Path | None, split: str, *, classes: Classes = None, ignore: Iterable[int] = ()
) -> MaskSource:
    """Open one split of a segmentation data set; nothing is downloaded.

    `masks` reads `path/split/images` and `path/split/masks`, or `path/images/split` and `path/masks/split`: pictures,
    and PNG masks of the same names. Its `classes` are names, or how many there are; None: the lines of
    `path/classes.txt`. `voc` is VOC 2012 under the root that torchvision's VOCSegmentation takes, `coco` COCO 2017 with
    VOC's 21 classes; both bring their classes. The ids in `ignore`, and 255, stand for no class.

    Raises UsageError for what is not there, and for images and masks that don't make pairs.
    """
    if source not in MASK_SOURCES:
        hint = did_you_mean(source, MASK_SOURCES) or f"known forms: {', '.join(MASK_SOURCES)}"
        raise UsageError(f"unknown source of pictures with masks {source!r}", hint=hint)
    return MASK_SOURCES[source](existing_folder(path, source), split, classes, tuple(ignore))


def holds_masks(path: str | Path, split: str) -> bool:
    """Return whether the folder is laid out as `masks` reads it."""
    return _image_and_mask_folders(Path(path).expanduser(), split) is not None


@dataclass(frozen=True)
class _MaskFiles:
    """Pairs of files: a picture and its mask."""

    name: str
    classes: tuple[str, ...]
    pairs: tuple[tuple[Path, Path], ...]
    ignore: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.pairs)

    def read(self, index: int) -> tuple[Image.Image, Tensor]:
        path, mask_path = self.pairs[index]
        with Image.open(path) as opened:
            image = as_rgb(opened)
        return image, read_mask(mask_path, len(self.classes), self.ignore, image.size)

    def describe(self, index: int) -> str:
        return str(self.pairs[index][0])


def _open_folder(root: Path, split: str, classes: Classes, ignore: tuple[int, ...]) -> MaskSource:
    folders = _image_and_mask_folders(root, split)
    if folders is None:
        there = "pictures with masks lie in SPLIT/images and SPLIT/masks, or in images/SPLIT and masks/SPLIT"
        raise UsageError(
            f"no folders {root / split / 'images'} and {root / split / 'masks'}",
            hint=there if (root / split).is_dir() else nearby_folders(root, split),
        )
    name = str(folders[0].parent if folders[0].name == "images" else root / split)
    return _MaskFiles(name, class_names(root, classes), _pairs(*folders), ignore)


def _image_and_mask_folders(root: Path, split: str) -> tuple[Path, Path] | None:
    for images, masks in (
        (root / split / "images", root / split / "masks"),
        (root / "images" / split, root / "masks" / split),
    ):
        if images.is_dir() and masks.is_dir():
            return images, masks
    return None


def _pairs(images: Path, masks: Path) -> tuple[tuple[Path, Path], ...]:
    """Return the images and the masks of the same names, in their order. Raises UsageError where one has no other."""
    pictures, drawn = _by_stem(images, IMG_EXTENSIONS), _by_stem(masks, (".png",))
    _check_paired(pictures, drawn, f"images in {images} without a mask in {masks}")
    _check_paired(drawn, pictures, f"masks in {masks} without an image in {images}")
    if not pictures:
        raise UsageError(f"{images} holds no picture", hint=f"it reads {', '.join(IMG_EXTENSIONS)}")
    return tuple((pictures[stem], drawn[stem]) for stem in pictures)


def _check_paired(files: dict[str, Path], others: dict[str, Path], what: str) -> None:
    if alone := [path.name for stem, path in files.items() if stem not in others]:
        raise UsageError(
            f"{what}: {listing(alone, _NAMED)}",
            hint="an image and its mask have the same name, up to the ending; masks are PNG files",
        )


def _by_stem(folder: Path, endings: Sequence[str]) -> dict[str, Path]:
    """Return the files by name without ending, sorted. Raises UsageError for two of one name."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in endings or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UsageError(f"{folder} has both {found[path.stem].name} and {path.name}", hint="remove one of them")
        found[path.stem] = path
    return found


def _open_voc(root: Path, split: str, classes: Classes, ignore: tuple[int, ...]) -> MaskSource:
    _refuse_classes("voc", classes)
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
    return _MaskFiles(f"voc ({split})", VOC_CLASSES, pairs, ignore)


def _open_coco(root: Path, split: str, classes: Classes, ignore: tuple[int, ...]) -> MaskSource:
    _refuse_classes("coco", classes)
    return open_coco(root, split, ignore)


def _refuse_classes(source: str, classes: Classes) -> None:
    if classes is not None:
        raise UsageError(f"{source} brings its {len(VOC_CLASSES)} classes", hint="leave data.classes out")


MASK_SOURCES: dict[str, Callable[[Path, str, Classes, tuple[int, ...]], MaskSource]] = {
    "masks": _open_folder,
    "voc": _open_voc,
    "coco": _open_coco,
}
