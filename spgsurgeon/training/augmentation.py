"""From a picture to what the model sees: augmented for training, plain for evaluation.

All random numbers come from torch's CPU generator, so seeding that one fixes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from timm.data.transforms import ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.models.preprocessing import Preprocessing

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied.

    `crop`: "random-resized" (Inception's), "pad" (resize, pad by an eighth, random crop) or "resize" (none).
    `flip` and `erase` are probabilities. `policy`: "autoaugment", "randaugment", "trivialaugment-wide" or "augmix".
    """

    crop: str = "random-resized"
    flip: float = 0.5
    policy: str | None = None
    erase: float = 0.0


def training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> Transform:
    """Return the augmenting transform, PIL image to normalised float32 [C, H, W], ordered as torchvision's presets are.

    Refuses unknown names of crops, policies and interpolations, and probabilities outside 0..1.
    """
    steps: list[Any] = list(_choose("crop", augmentation.crop, CROPS)(preprocessing))
    if _probability("flip", augmentation.flip):
        steps.append(v2.RandomHorizontalFlip(augmentation.flip))
    if augmentation.policy is not None:
        steps.append(_choose("policy", augmentation.policy, POLICIES)(interpolation=InterpolationMode.BILINEAR))
    steps += _to_normalised(preprocessing)
    if _probability("erase", augmentation.erase):
        steps.append(v2.RandomErasing(augmentation.erase))
    return _compose(steps)


def evaluation_transform(preprocessing: Preprocessing) -> Transform:
    """Return the transform for evaluation, PIL image to normalised float32 [C, H, W].

    The shorter edge is resized to height / crop_pct, rounded down as timm does, then the centre is cropped.
    """
    _, height, width = preprocessing.input_size
    resize: Any
    # the epsilon keeps 224 / (224 / 232) at 232
    edges = [math.floor(side / preprocessing.crop_pct + 1e-6) for side in (height, width)]
    if height == width:
        resize = v2.Resize(edges[0], interpolation=_interpolation(preprocessing))
    else:  # the shorter edge alone could leave a picture smaller than the crop
        resize = ResizeKeepRatio(edges, interpolation=_interpolation(preprocessing).value)
    return _compose([resize, v2.CenterCrop((height, width)), *_to_normalised(preprocessing)])


def _random_resized(preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.input_size[1:]
    return [v2.RandomResizedCrop(size, interpolation=_interpolation(preprocessing))]


def _pad(preprocessing: Preprocessing) -> list[Any]:
    _, height, width = preprocessing.input_size
    return [*_resize(preprocessing), v2.RandomCrop((height, width), padding=[width // 8, height // 8])]


def _resize(preprocessing: Preprocessing) -> list[Any]:
    return [v2.Resize(preprocessing.input_size[1:], interpolation=_interpolation(preprocessing))]


def _to_normalised(preprocessing: Preprocessing) -> list[Any]:
    channels = preprocessing.input_size[0]
    if channels not in (1, 3) or not len(preprocessing.mean) == len(preprocessing.std) == channels:
        raise UsageError(
            f"the model reads {channels} channels with {len(preprocessing.mean)} means and {len(preprocessing.std)} "
            "standard deviations; pictures can be given as 1 (grey) or 3 (RGB) channels, with one of each per channel"
        )
    grey = [v2.Grayscale()] if channels == 1 else []
    scale = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    return [*grey, *scale, v2.Normalize(preprocessing.mean, preprocessing.std)]


def _compose(steps: list[Any]) -> Transform:
    transform: Transform = v2.Compose(steps)
    return transform


def _interpolation(preprocessing: Preprocessing) -> InterpolationMode:
    return _choose("interpolation", preprocessing.interpolation, {mode.value: mode for mode in InterpolationMode})


def _choose(what: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}", hint=did_you_mean(name, table) or f"known: {', '.join(table)}")
    return table[name]


def _probability(what: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"{what} is a probability, found {value}", hint="give a number between 0 and 1")
    return value


CROPS: dict[str, Callable[[Preprocessing], list[Any]]] = {
    "random-resized": _random_resized,
    "pad": _pad,
    "resize": _resize,
}
POLICIES: dict[str, Any] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment-wide": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}
