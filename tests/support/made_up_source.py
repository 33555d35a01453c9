"""A data source in one file: two classes of plain images, drawn from their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.data.sources.forms import SourceForm
from spgsurgeon.data.sources.reading import Reading

SHADES = SourceForm("shades", "light and dark squares", "made_up_source:open_shades", needs_path=False)


@dataclass(frozen=True)
class _Shades:
    name: str
    classes: tuple[str, ...] = ("dark", "light")
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 16

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (16, 16), (128 * (index % 2) + index,) * 3), index % 2

    def describe(self, index: int) -> str:
        return f"{self.name}, square {index}"

    def labels(self) -> NDArray[np.int64]:
        return np.arange(len(self)) % 2

    def fingerprint(self) -> Iterable[str]:
        return [self.name]

    def file_paths(self) -> Iterable[str | Path]:
        return ()

    def marks(self) -> Iterable[str]:
        return ()


def open_shades(source: str, path: str | Path | None, split: str, reading: Reading) -> _Shades:
    return _Shades(f"{source} ({split})")
