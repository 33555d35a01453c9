"""A folder of images as people have them: other modes, damaged files, copies, and what does not belong there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("cat", "dog")
BROKEN = ("train/cat/cut.jpg", "train/dog/empty.png")
"""Files that can't be read."""


def noise(seed: int, mode: str = "RGB", width: int = 20) -> Image.Image:
    drawn = np.random.default_rng(seed)
    if mode == "I;16":
        return Image.fromarray(drawn.integers(0, 2**16, (16, width), dtype=np.uint16))
    return Image.fromarray(drawn.integers(0, 256, (16, width, 3), dtype=np.uint8)).convert(mode)


def clean_folder(root: Path, each: int = 3) -> Path:
    """Write images of noise, `each` a class and split, none like another."""
    seeds = iter(range(1000))
    for split in ("train", "val"):
        for name in CLASSES:
            (root / split / name).mkdir(parents=True)
            for number in range(each):
                noise(next(seeds)).save(root / split / name / f"{number}.png")
    return root


def messy_folder(root: Path) -> Path:
    """Write such a folder, and what is wrong with it: of 14 files of `train` two are `BROKEN`."""
    cats, dogs = (root / "train" / name for name in CLASSES)
    clean_folder(root)
    noise(100, "I;16").save(cats / "deep.png")
    noise(101, "CMYK", width=40).save(cats / "print.jpg")
    noise(102, "RGBA").save(dogs / "alpha.png")
    exif = Image.Exif()
    exif[0x112] = 6
    noise(103).save(dogs / "turned.jpg", exif=exif)
    whole = (dogs / "turned.jpg").read_bytes()
    (root / BROKEN[0]).write_bytes(whole[: len(whole) // 2])
    (root / BROKEN[1]).write_bytes(b"")
    (cats / "._0.png").write_bytes(b"what macOS writes beside 0.png")
    (cats / "list.txt").write_text("not an image")
    shutil.copy(dogs / "1.png", root / "val" / "dog" / "copy.png")  # in both splits
    shutil.copy(dogs / "2.png", cats / "other.png")  # in both classes
    shutil.copy(dogs / "0.png", dogs / "again.png")
    return root
