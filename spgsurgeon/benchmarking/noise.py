"""Pictures of noise, for measuring a training step where no data is given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


@dataclass(frozen=True)
class Noise:
    """As many pictures as ImageNet has, of `size` (height, width) pixels; each has a label, or a mask with `masks`."""

    classes: tuple[str, ...]
    size: tuple[int, int]
    masks: bool
    name: str = "noise"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 1_281_167

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """Return a picture and its label, or its mask int64 [H, W]; functions of `index`."""
        random = np.random.default_rng(index)
        picture = Image.fromarray(random.integers(0, 256, (*self.size, 3), dtype=np.uint8))
        if self.masks:
            return picture, torch.from_numpy(random.integers(0, len(self.classes), self.size))
        return picture, index % len(self.classes)

    def describe(self, index: int) -> str:
        """Return what to call a picture."""
        return f"noise {index}"

    def file_paths(self) -> Iterable[str | Path]:
        """Return none: it is made."""
        return ()

    def marks(self) -> Iterable[str]:
        """Return none: it is always the same."""
        return ()
