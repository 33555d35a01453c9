"""What goes into a model: tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

IMAGES = "images"
"""What images are called, in a batch and in an exported graph; each model has a name of its own for them."""


def call(model: nn.Module, inputs: Mapping[str, Tensor]) -> Any:
    """Return what the model gives on `inputs`: images go in first place, all others by their names."""
    others = dict(inputs)
    first = (others.pop(IMAGES),) if IMAGES in others else ()
    return model(*first, **others)
