"""WebDataset shards that tests make, and the same images as a folder."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

File = tuple[str, bytes]


def picture(number: int, ending: str = "jpg", side: int = 24) -> bytes:
    """Return an encoded image of noise, another one for each number."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, {"jpg": "jpeg"}.get(ending, ending))
    return stream.getvalue()


def sample(key: str, label: int, content: bytes, ending: str = "jpg") -> list[File]:
    return [(f"{key}.cls", b"%d" % label), (f"{key}.{ending}", content)]


def write_tar(path: Path, files: Iterable[File], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def make_shards(
    root: Path, *, splits: tuple[str, ...] = ("train", "val"), shards: int = 3, each: int = 4, classes: int = 3
) -> Path:
    """Make `SPLIT-NUMBER.tar` for each split, samples in the order of their labels as in a folder; return the root."""
    count = shards * each
    for split in splits:
        for shard in range(shards):
            numbers = range(shard * each, (shard + 1) * each)
            files = [file for n in numbers for file in sample(f"{n:04}", n * classes // count, picture(n))]
            write_tar(root / f"{split}-{shard:03}.tar", files)
    return root


def make_same_folder(
    root: Path, *, splits: tuple[str, ...] = ("train", "val"), count: int = 12, classes: int = 3
) -> Path:
    """Make the images of `make_shards` as an image-folder tree; return its path."""
    for split in splits:
        for number in range(count):
            path = root / split / str(number * classes // count) / f"{number:04}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    return root
