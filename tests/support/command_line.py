"""How tests run the command line, and what they give it to eat."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from spgsurgeon.cli.app import run

TINY = ("timm/test_resnet", "--random-weights")
DIGITS = ("--recipe", "digits-dropout", "training.epochs=1", "training.device=cpu")


@dataclass(frozen=True)
class Outcome:
    """What a command left: its exit code and both streams."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document that --json promises on stdout."""
        found: dict[str, Any] = json.loads(self.out)
        return found


def spgsurgeon(*arguments: object) -> Outcome:
    """Run one command in this process: starting another one and importing torch takes seconds."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
        code = run([str(argument) for argument in arguments])
    return Outcome(code, out.getvalue(), err.getvalue())


def succeed(*arguments: object) -> Outcome:
    """Run one command that has to work."""
    outcome = spgsurgeon(*arguments)
    assert outcome.code == 0, outcome.err + outcome.out
    return outcome


def snapshot(folder: Path) -> dict[str, str]:
    """Return everything below `folder`: a hash for each file, the target of each link, nothing for folders."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent, name)
            if path.is_symlink():
                content = f"-> {path.readlink()}"
            else:
                content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
            found[str(path.relative_to(folder))] = content
    return found


def make_image_folder(
    root: Path, *, splits: tuple[str, ...] = ("train", "val"), classes: int = 2, each: int = 2
) -> Path:
    """Make an image-folder tree of plain images, 8 x 8 pixels, each class in its own grey; return its path."""
    for split in splits:
        for label in range(classes):
            folder = root / split / f"class{label:04d}"
            folder.mkdir(parents=True)
            for number in range(each):
                Image.new("RGB", (8, 8), (label % 256, 40 * number % 256, 128)).save(folder / f"{number}.png")
    return root


def make_mask_folder(
    root: Path, *, splits: tuple[str, ...] = ("train", "val"), classes: int = 3, each: int = 2, side: int = 64
) -> Path:
    """Make images with masks, `side` pixels square: vertical stripes of grey, a class each; return their path."""
    for split in splits:
        (root / split / "images").mkdir(parents=True)
        (root / split / "masks").mkdir()
        for number in range(each):
            mask = Image.new("L", (side, side))
            mask.putdata([(x * classes // side + number) % classes for _ in range(side) for x in range(side)])
            mask.save(root / split / "masks" / f"{number}.png")
            picture = mask.point(lambda label: label * 255 // classes).convert("RGB")
            picture.save(root / split / "images" / f"{number}.png")
    return root
