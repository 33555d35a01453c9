"""Where labelled images come from: the built-in digits, image-folder trees, tar files, and what timm reads.

Each form has an opener here, which `forms.SOURCES` names. Images in tar files: `shards`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.data.sources.class_folders import EVALUATION_SPLITS, find_class_folders
from spgsurgeon.data.sources.file_states import file_states, tree_files
from spgsurgeon.data.sources.forms import spelled
from spgsurgeon.data.sources.image_decoding import AS_IS, ENDINGS, Decoding, as_rgb, decode
from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.source import (
    ImageSource,
    existing_folder,
    printable,
    short_hash,
)
from spgsurgeon.data.strata import stratified_order
from spgsurgeon.errors import UsageError

_DIGITS_FILE = Path(__file__).with_name("digits.npz")
DIGIT_SPLITS = {"train": 600, "val": 500, "test": 697}


@dataclass(frozen=True)
class _Digits:
    """Images held in memory, uint8 [N, 8, 8]; `origin` is each one's place in scikit-learn's data set."""

    name: str
    pixels: NDArray[np.uint8]
    targets: tuple[int, ...]
    origin: tuple[int, ...]
    classes: tuple[str, ...] = tuple("0123456789")
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels[index]).convert("RGB"), self.targets[index]

    def labels(self) -> NDArray[np.int64]:
        return np.array(self.targets)

    def file_paths(self) -> Iterable[str | Path]:
        return ()

    def marks(self) -> Iterable[str]:
        return [short_hash(self.pixels.tobytes()), short_hash(str(self.targets).encode())]

    def fingerprint(self) -> Iterable[str]:
        return [self.name, self.pixels.tobytes().hex(), str(self.targets)]

    def describe(self, index: int) -> str:
        return f"{self.name}, sample {index} (number {self.origin[index]} of scikit-learn's load_digits)"


def open_digits(source: str, path: str | Path | None, split: str, reading: Reading) -> ImageSource:
    """Open a split of the handwritten digits that ship with the package, in the order of scikit-learn's load_digits.

    They are the test part of UCI's Optical Recognition of Handwritten Digits (E. Alpaydin and C. Kaynak, 1998), and lie
    beside this file: scikit-learn would be installed for nothing else.
    """
    if split not in DIGIT_SPLITS:
        raise UsageError(f"digits has no split {split!r}", hint=f"its splits are {', '.join(DIGIT_SPLITS)}")
    with np.load(_DIGITS_FILE, allow_pickle=False) as archive:
        grey, labels = archive["grey"], archive["labels"]  # uint8 [1797, 64], 17 levels of grey, 0..16; uint8 [1797]
    order = stratified_order(labels, "digits")
    names = list(DIGIT_SPLITS)
    start = sum(DIGIT_SPLITS[name] for name in names[: names.index(split)])
    origin = order[start : start + DIGIT_SPLITS[split]]
    pixels = np.rint(grey[origin].reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    return _Digits(f"digits ({split})", pixels, tuple(int(labels[i]) for i in origin), tuple(origin))


@dataclass(frozen=True)
class _TorchvisionSource:
    """A torchvision data set, whose items are (PIL image, label)."""

    name: str
    classes: tuple[str, ...]
    dataset: Any
    decoding: Decoding = AS_IS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Image.Image, int]:
        image, label = self.dataset[index]
        return image if image.mode == "RGB" else as_rgb(image, self.decoding), int(label)

    def labels(self) -> NDArray[np.int64]:
        return _labels_of(self, getattr(self.dataset, "targets", None))

    def file_paths(self) -> Iterable[str | Path]:
        samples = getattr(self.dataset, "samples", None)
        return (path for path, _ in samples) if samples else tree_files(_folder_of(self.dataset))

    def marks(self) -> Iterable[str]:
        return [repr(self.decoding), short_hash(str(getattr(self.dataset, "targets", None)).encode())]

    def fingerprint(self) -> Iterable[str]:
        targets = str(getattr(self.dataset, "targets", None))
        return [self.name, repr(self.decoding), targets, *file_states(self.file_paths())]

    def describe(self, index: int) -> str:
        samples = getattr(self.dataset, "samples", None)  # (path, label) pairs of those that are kept as files
        return printable(str(samples[index][0])) if samples else f"{self.name}, sample {index}"


def _folder_of(dataset: Any) -> str | Path:
    """Return the folder that holds a data set's own files, rather than what else lies beside it, where it says so."""
    base = getattr(dataset, "base_folder", None)
    folder = Path(dataset.root, base) if isinstance(base, str) else getattr(dataset, "raw_folder", None)
    return folder if folder is not None and Path(folder).is_dir() else dataset.root


def open_folder(source: str, path: str | Path | None, split: str, reading: Reading) -> ImageSource:
    """Open the sub-folder `split` of `path`, which holds the class folders ("" or ".": `path` itself does)."""
    found = find_class_folders(source, path, split, "image", ENDINGS, partial(decode, decoding=reading.decoding))
    _check_no_splits(found.classes, split, found.name)
    return _TorchvisionSource(found.name, found.classes, found.dataset, reading.decoding, found.notes)


def _check_no_splits(classes: Sequence[str], split: str, root: str) -> None:
    """Raise UsageError if what is read as classes are the splits of a tree, each with its own class folders."""
    others = [name for name in classes if name != "train"]
    if split in ("", ".") and "train" in classes and {*others} <= {*EVALUATION_SPLITS}:
        scored = f"data.eval={others[0]} data.holdout=null" if others else "data.eval=holdout"
        raise UsageError(
            f"the class folders of {root} are {', '.join(classes)}: these are splits",
            hint=f"data.train=train {scored}",
            code="splits-as-classes",
        )


def open_torchvision(source: str, path: str | Path | None, split: str, reading: Reading) -> ImageSource:
    """Open a split of one of torchvision's data sets, which lies in `path` already."""
    decoding = reading.decoding
    dataset = _create(source, existing_folder(path, source), split)
    if getattr(dataset, "train", None) is False and split not in EVALUATION_SPLITS:
        # timm gives the test images for any split that it does not know
        raise UsageError(
            f"{source} has no split {split!r}", hint=f"use 'train' or one of {', '.join(EVALUATION_SPLITS)}"
        )
    classes = _class_names(dataset.classes if hasattr(dataset, "classes") else getattr(dataset, "all_categories", ()))
    if hasattr(dataset, "loader"):  # of those whose images are files: it would open any format
        dataset.loader = partial(decode, decoding=decoding)
    return _TorchvisionSource(f"{source} ({split})", classes or _numbered(source, dataset), dataset, decoding)


@dataclass(frozen=True)
class _ReaderSource:
    """A timm data set that reads through a reader; its own item access would replace unreadable images by others."""

    name: str
    classes: tuple[str, ...]
    dataset: Any
    decoding: Decoding = AS_IS
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.dataset)

    def read(self, index: int) -> tuple[Image.Image, int]:
        stream, label, *_ = self.dataset.reader[index]
        with stream:
            return decode(stream, self.decoding), int(label)

    def labels(self) -> NDArray[np.int64]:
        targets = getattr(self.dataset.reader, "iter_targets", None)  # which older ones lack
        return _labels_of(self, list(targets()) if targets else None)

    def file_paths(self) -> Iterable[str | Path]:
        return ()

    def marks(self) -> Iterable[str]:
        return [str(getattr(self.dataset.reader.dataset, "_fingerprint", None))]

    def fingerprint(self) -> Iterable[str]:
        return [self.name, repr(self.decoding), *self.marks()]

    def describe(self, index: int) -> str:
        return f"{self.name}, sample {index}"


def _labels_of(source: ImageSource, targets: Any) -> NDArray[np.int64]:
    labels = np.asarray(() if targets is None else targets)
    if labels.shape != (len(source),) or labels.dtype.kind not in "iu":
        raise UsageError(
            f"{source.name} gives its labels only with its images, and all of them would have to be read",
            hint="unpack it and use source 'folder'; without data.limit, data.holdout and data.label_noise labels are "
            "read as they come",
        )
    return labels.astype(np.int64)


def open_hugging_face(source: str, path: str | Path | None, split: str, reading: Reading) -> ImageSource:
    """Open a split of a data set that Hugging Face's `datasets` knows."""
    decoding = reading.decoding
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(f"{source} can't be read: package datasets is not installed", hint="pip install datasets")
    dataset = _create(source, path, split)
    numbers = dict(dataset.reader.class_to_idx)
    classes = _class_names(sorted(numbers, key=lambda name: numbers[name]))
    return _ReaderSource(f"{source} ({split})", classes or _numbered(source, dataset), dataset, decoding)


def _create(source: str, path: str | Path | None, split: str) -> Any:
    from timm.data.dataset_factory import create_dataset

    try:
        return create_dataset(source, root=None if path is None else str(path), split=split, download=False)
    except Exception as error:  # each reader raises what it likes for a missing file, an unknown name or split
        raise UsageError(
            f"can't open split {split!r} of {source} at {path}: {str(error) or type(error).__name__}",
            hint=f"the data must be there already, nothing is downloaded; sources are {spelled()}",
        ) from error


def _class_names(names: Sequence[Any]) -> tuple[str, ...]:
    """Return names as text; ImageNet's are tuples of synonyms."""
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)


def _numbered(source: str, dataset: Any) -> tuple[str, ...]:
    targets = getattr(dataset, "targets", None)
    if targets is None or len(targets) == 0:
        raise UsageError(f"{source} does not say how many classes it has", hint="unpack it and use source 'folder'")
    return tuple(str(number) for number in range(int(max(targets)) + 1))
