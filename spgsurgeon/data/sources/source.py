"""Sources: images that can be read in any order, each with its target; and what readers of all kinds share.

Labelled images come from `image_sources`, images with masks from `mask_sources`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.errors import UsageError, did_you_mean

Target = TypeVar("Target", covariant=True)


class Source(Protocol[Target]):
    """Images that can be read in any order, each with its target: a label, or a mask of the image's size."""

    @property
    def name(self) -> str:
        """What to call the source in messages."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Name of each class by label; "0", "1", ... where the data does not name them."""

    def __len__(self) -> int: ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What opening it chose or left out, to be said aloud."""

    def read(self, index: int) -> tuple[Image.Image, Target]:
        """Return the decoded RGB image and its target; raises what the decoder raises where that fails."""

    def describe(self, index: int) -> str:
        """Return where a sample is, for messages: its file's path where it has one."""

    def file_paths(self) -> Iterable[str | Path]:
        """Return the files that `read` goes to; none where it goes to no files, or they are not known."""

    def marks(self) -> Iterable[str]:
        """Return lines of which one changes where the samples may be others, although names and states of files do not.

        Each is short.
        """


class ImageSource(Source[int], Protocol):
    """Labelled images."""

    def labels(self) -> NDArray[np.int64]:
        """Return the label of each sample, int64 [N], without decoding an image; UsageError where only that tells."""

    def fingerprint(self) -> Iterable[str]:
        """Return lines of which one changes where what `read` gives may have changed."""


@dataclass(frozen=True)
class Data:
    """What a run trains on and what it is scored on."""

    train: Source[Any]
    evaluation: Source[Any]
    said: tuple[str, ...] = ()
    """What is said of a training on it, and not of the model."""


def check_same_classes(train: Source[Any], evaluation: Source[Any]) -> None:
    """Raise UsageError naming the differences unless both sources give each class the same label."""
    if train.classes == evaluation.classes:
        return
    missing = [name for name in train.classes if name not in evaluation.classes]
    extra = [name for name in evaluation.classes if name not in train.classes]
    found = [
        f"only in {where}: {listing(names)}" for where, names in (("training", missing), ("evaluation", extra)) if names
    ]
    raise UsageError(
        f"the classes of {train.name} (training) and {evaluation.name} (evaluation) differ: "
        + ("; ".join(found) or "the same names, in another order"),
        hint="both need the same classes: labels are counted off in their order",
    )


def check_several_classes(source: Source[Any]) -> None:
    """Raise UsageError for a data set of one class: any model scores 100 there, and learns nothing."""
    if len(source.classes) == 1:
        raise UsageError(
            f"{source.name} has one class, {source.classes[0]!r}, so there is nothing to learn",
            hint="the folder of a split has one sub-folder per class, SPLIT/CLASS/IMAGE; masks have a class for the "
            "background too",
        )


def listing(names: Sequence[str], limit: int = 5) -> str:
    """Return the first names, quoted, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def existing_folder(path: str | Path | None, source: str) -> Path:
    """Return the folder `path` that `source` is to read from. Raises UsageError if there is none."""
    if path is None:
        raise UsageError(f"data source {source!r} needs a path", hint="set data.path to the folder that holds the data")
    root = Path(path).expanduser()
    if not root.is_dir():
        found = "is a file" if root.exists() else "does not exist"
        raise UsageError(f"data path {root} {found}", hint="set data.path to the folder that holds the data")
    return root


def nearby_folders(parent: Path, name: str) -> str:
    """Return a hint naming the sub-folders of `parent` that `name` may be a slip for, else those that there are."""
    present = sorted(entry.name for entry in parent.iterdir() if entry.is_dir()) if parent.is_dir() else []
    return did_you_mean(name, present) or f"sub-folders there: {listing(present, 10) if present else 'none'}"


def short_hash(data: bytes) -> str:
    """Return a hash as text, for `Source.marks`."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def sample_within(described: str, root: str | Path | None) -> str:
    """Return where a sample is, as its source describes it, without the data's folder in front; else as it is."""
    if root is None:
        return described
    given = Path(root).expanduser()
    for folder in (given, given.absolute()):
        below = printable(os.path.join(folder, ""))
        if described.startswith(below):
            return described.removeprefix(below)
    return described


def printable(name: str) -> str:
    """Return a file's name as text that every console and document takes: bytes that are not UTF-8 as \\xNN."""
    shown = re.sub("[\udc80-\udcff]", lambda found: f"\\x{ord(found[0]) - 0xDC00:02x}", name)
    return shown.encode("utf-8", "backslashreplace").decode()  # names from documents have other lone surrogates
