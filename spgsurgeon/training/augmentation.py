"""From a picture to what the model sees: augmented for training, plain for evaluation.

All random numbers come from torch's CPU generator, so seeding that one fixes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from PIL import Image
from timm.data.transforms import ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.training.masks import IGNORED, LabelMap

Transform = Callable[[Image.Image], Tensor]


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied.

    `crop`: "random-resized" (Inception's), "pad" (resize, pad by an eighth, random crop), "random-scale" (of
    segmentation: the shorter edge resized to 0.5 to 2 times the height, random crop) or "resize" (none).
    `flip` and `erase` are probabilities. `policy`: "autoaugment", "randaugment", "trivialaugment-wide" or "augmix".
    """

    crop: str = "random-resized"
    flip: float = 0.5
    policy: str | None = None
    erase: float = 0.0


def training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> Transform:
    """Return the augmenting transform, PIL image to normalised float32 [C, H, W], ordered as torchvision's presets are.

    Refuses unknown names of crops, policies and interpolations, crops that are for masks, and probabilities outside
    0..1.
    """
    steps = [*crop_steps(augmentation.crop, "classification", preprocessing), *flip_steps(augmentation)]
    if augmentation.policy is not None:
        steps.append(_choose("policy", augmentation.policy, POLICIES)(interpolation=InterpolationMode.BILINEAR))
    steps += to_normalised(preprocessing)
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
        resize = v2.Resize(edges[0], interpolation=interpolation(preprocessing))
    else:  # the shorter edge alone could leave a picture smaller than the crop
        resize = ResizeKeepRatio(edges, interpolation=interpolation(preprocessing).value)
    return _compose([resize, v2.CenterCrop((height, width)), *to_normalised(preprocessing)])


def crop_steps(crop: str, task: str, preprocessing: Preprocessing) -> list[Any]:
    """Return the transforms of a crop, by its name in `CROPS`. Raises UsageError for one that is not for `task`."""
    chosen = _choose("crop", crop, CROPS)
    if task not in chosen.tasks:
        known = ", ".join(name for name, other in CROPS.items() if task in other.tasks)
        raise UsageError(f"data.augment.crop {crop!r} is not for {task}", hint=f"there are {known}")
    steps: list[Any] = chosen.steps(preprocessing)
    return steps


def flip_steps(augmentation: Augmentation) -> list[Any]:
    """Return the transform that mirrors, or nothing."""
    return [v2.RandomHorizontalFlip(augmentation.flip)] if _probability("flip", augmentation.flip) else []


def _random_resized(preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.input_size[1:]
    return [v2.RandomResizedCrop(size, interpolation=interpolation(preprocessing))]


def _pad(preprocessing: Preprocessing) -> list[Any]:
    _, height, width = preprocessing.input_size
    return [*_resize(preprocessing), v2.RandomCrop((height, width), padding=[width // 8, height // 8])]


def _resize(preprocessing: Preprocessing) -> list[Any]:
    return [v2.Resize(preprocessing.input_size[1:], interpolation=interpolation(preprocessing))]


def _random_scale(preprocessing: Preprocessing) -> list[Any]:
    """As torchvision's segmentation reference, but for scales and colour.

    They are of the crop's size, and what is too small gets the mean colour around it; the reference has a size of its
    own for scales (520 pixels for crops of 480), and black.
    """
    _, height, width = preprocessing.input_size
    mean = preprocessing.mean if len(preprocessing.mean) == 3 else preprocessing.mean[:1] * 3
    fill = {LabelMap: IGNORED, "others": [round(255 * channel) for channel in mean]}
    return [
        v2.RandomResize(max(1, height // 2), 2 * height + 1, interpolation=interpolation(preprocessing)),
        v2.RandomCrop((height, width), pad_if_needed=True, fill=fill),
    ]


def to_normalised(preprocessing: Preprocessing) -> list[Any]:
    """Return the transforms from a PIL image to normalised float32 [C, H, W]; masks pass through them."""
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


def interpolation(preprocessing: Preprocessing) -> InterpolationMode:
    """Return the interpolation by its name. Raises UsageError for an unknown one."""
    return _choose("interpolation", preprocessing.interpolation, {mode.value: mode for mode in InterpolationMode})


def _choose(what: str, name: str, table: dict[str, Any]) -> Any:
    if name not in table:
        raise UsageError(f"unknown {what} {name!r}", hint=did_you_mean(name, table) or f"known: {', '.join(table)}")
    return table[name]


def _probability(what: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise UsageError(f"{what} is a probability, found {value}", hint="give a number between 0 and 1")
    return value


class Crop(NamedTuple):
    """How a picture comes to the model's size, and the tasks that this is for."""

    steps: Callable[[Preprocessing], list[Any]]
    tasks: tuple[str, ...]


CROPS = {
    "random-resized": Crop(_random_resized, ("classification",)),
    "pad": Crop(_pad, ("classification",)),
    "random-scale": Crop(_random_scale, ("segmentation",)),
    "resize": Crop(_resize, ("classification", "segmentation")),
}
POLICIES: dict[str, Any] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment-wide": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}
