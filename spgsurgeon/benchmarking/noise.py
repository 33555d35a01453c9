"""Noise, for measuring a training step where no data is given: images, or blocks of tokens for language models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from spgsurgeon.data import Batch, Blocks, Frame
from spgsurgeon.models import TextPreprocessing, modes_kept
from spgsurgeon.objective import DeferredLogits
from spgsurgeon.replicas import GraftedModel, main_output
from spgsurgeon.tasks import Task
from spgsurgeon.training import logits_of


@dataclass(frozen=True)
class Noise:
    """As many images as ImageNet has, of `size` (height, width) pixels; each has a label, or a mask with `masks`."""

    classes: tuple[str, ...]
    size: tuple[int, int]
    masks: bool
    name: str = "noise"
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 1_281_167

    def read(self, index: int) -> tuple[Image.Image, Any]:
        """Return an image and its label, or its mask int64 [H, W]; functions of `index`."""
        random = np.random.default_rng(index)
        picture = Image.fromarray(random.integers(0, 256, (*self.size, 3), dtype=np.uint8))
        if self.masks:
            return picture, torch.from_numpy(random.integers(0, len(self.classes), self.size))
        return picture, index % len(self.classes)

    def describe(self, index: int) -> str:
        """Return what to call an image."""
        return f"noise {index}"

    def file_paths(self) -> Iterable[str | Path]:
        """Return none: it is made."""
        return ()

    def marks(self) -> Iterable[str]:
        """Return none: it is always the same."""
        return ()


def noise_blocks(preprocessing: TextPreprocessing, count: int) -> Blocks:
    """Return blocks of as many tokens as the model reads, each of which is any that it knows."""
    assert preprocessing.vocabulary is not None
    length = preprocessing.max_length
    tokens = np.random.default_rng(0).integers(preprocessing.vocabulary, size=count * length, dtype=np.int32)
    return Blocks("noise", tokens, length, Frame((), (), ()))


@torch.no_grad()
def with_likely_targets(parts: list[Batch], task: Task, grafted: GraftedModel) -> list[Batch]:
    """Return batches of a task with deferred logits in which what is to be predicted is what the base does predict.

    A further step reads the units whose episode still runs, and of noise almost none would.
    """
    found = []
    with modes_kept(grafted):
        grafted.eval()
        for part in parts:
            logits = logits_of(task, grafted, part.inputs, base=grafted.base, output=main_output)
            assert isinstance(logits, DeferredLogits)
            found.append(part._replace(targets=torch.where(part.targets < 0, part.targets, logits.likeliest())))
    return found
