"""From an image to what the model sees: augmented for training, plain for evaluation.

All random numbers come from torch's CPU generator, so seeding that one fixes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from spgsurgeon.data.loading.transfer import sent
from spgsurgeon.data.transforms.masks import IGNORED, LabelMap
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.models import Preprocessing

Transform = Callable[[Image.Image], Tensor]


class StagedTransform:
    """A transform in two stages: `fixed` gives the same image each time, so its result may be kept; `varied` follows.

    `steps` are those of the second stage.
    """

    def __init__(self, fixed: list[Any], varied: list[Any]) -> None:
        self.steps = varied
        self._fixed = v2.Compose(fixed) if fixed else None
        self._varied = v2.Compose(varied)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return the normalised float32 [C, H, W]."""
        return self.varied(self.fixed(image))

    def fixed(self, image: Image.Image) -> Image.Image:
        """Return what comes of a decoded image before anything is drawn for it."""
        result: Image.Image = self._fixed(image) if self._fixed else image
        return result

    def varied(self, image: Image.Image) -> Tensor:
        """Return the normalised float32 [C, H, W] of what `fixed` gave."""
        result: Tensor = self._varied(image)
        return result

    def fixed_key(self) -> str:
        """Return a text that is another one where `fixed` does something else."""
        return repr(self._fixed)


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied.

    `crop`: "random-resized" (Inception's), "pad" (resize, pad by an eighth, random crop), "random-scale" (of
    segmentation: the shorter edge resized to 0.5 to 2 times the height, random crop) or "resize" (none).
    `flip` and `erase` are probabilities. `policy`: "autoaugment", "randaugment", "trivialaugment-wide" or "augmix".
    """

    crop: str = "random-resized"
    flip: float = 0.5
    policy: str | None = None
    erase: float = 0.0


def training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> StagedTransform:
    """Return the augmenting transform, PIL image to normalised float32 [C, H, W], ordered as torchvision's presets are.

    Refuses unknown names of crops, policies and interpolations, crops that are for masks, and probabilities outside
    0..1.
    """
    fixed, varied = crop_steps(augmentation.crop, "classification", preprocessing)
    steps = [*varied, *flip_steps(augmentation)]
    if augmentation.policy is not None:
        steps.append(_choose("policy", augmentation.policy, POLICIES)(interpolation=InterpolationMode.BILINEAR))
    steps += [*_to_grey(preprocessing), Normalised(preprocessing)]
    if _probability("erase", augmentation.erase):
        steps.append(v2.RandomErasing(augmentation.erase))
    return StagedTransform(fixed, steps)


def evaluation_transform(preprocessing: Preprocessing) -> StagedTransform:
    """Return the transform for evaluation, PIL image to normalised float32 [C, H, W].

    It is timm's `create_transform` for the same settings, pixel for pixel; see `Preprocessing`. Refuses unknown crop
    modes and interpolations.
    """
    fit = _choose("crop mode", preprocessing.crop_mode, _FITS)
    edges = tuple(math.floor(side / preprocessing.crop_pct) for side in preprocessing.input_size[1:])
    return StagedTransform(fit(preprocessing, edges), [*_to_grey(preprocessing), Normalised(preprocessing)])


def _fit_shorter_edge(preprocessing: Preprocessing, edges: tuple[int, int]) -> list[Any]:
    resize: Any
    if edges[0] == edges[1]:
        resize = v2.Resize(edges[0], interpolation=interpolation(preprocessing))
    else:  # the shorter edge alone could leave an image smaller than the crop
        resize = ResizeKeepRatio(edges, interpolation=interpolation(preprocessing).value)
    return [resize, _centre_crop(preprocessing)]


def _fit_each_edge(preprocessing: Preprocessing, edges: tuple[int, int]) -> list[Any]:
    return [
        v2.Resize(edges, interpolation=interpolation(preprocessing)),
        _centre_crop(preprocessing),
    ]


def _centre_crop(preprocessing: Preprocessing) -> Any:
    kind = _CropRoundedDown if preprocessing.crop_rounds_down else v2.CenterCrop
    return kind(preprocessing.input_size[1:])


class _CropRoundedDown(v2.CenterCrop):  # type: ignore[misc]  # torchvision comes without types
    """torchvision's, but that half a pixel is always left out on the left and above."""

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Return the crop; `inpt` must not be smaller."""
        height, width = self.size
        all_of_it = v2.functional.get_size(inpt)
        top, left = (all_of_it[0] - height) // 2, (all_of_it[1] - width) // 2
        return v2.functional.crop(inpt, top, left, height, width)


def _fit_longer_edge(preprocessing: Preprocessing, edges: tuple[int, int]) -> list[Any]:
    return [
        ResizeKeepRatio(edges, interpolation=interpolation(preprocessing).value, longest=1.0),
        _CropOrPad(list(preprocessing.input_size[1:]), fill=_mean_colour(preprocessing)),
    ]


_FITS = {"center": _fit_shorter_edge, "squash": _fit_each_edge, "border": _fit_longer_edge}


class _CropOrPad(CenterCropOrPad):
    """timm's, but for its text, which says the colour too: images kept under `fixed_key` differ by it."""

    def __repr__(self) -> str:
        return f"CenterCropOrPad(size={self.size}, fill={self.fill})"


def _mean_colour(preprocessing: Preprocessing) -> tuple[int, int, int]:
    """Return the mean as an RGB colour, 0..255: images turn grey only later."""
    mean = preprocessing.mean if len(preprocessing.mean) == 3 else preprocessing.mean[:1] * 3
    red, green, blue = (round(255 * channel) for channel in mean)
    return red, green, blue


def crop_steps(crop: str, task: str, preprocessing: Preprocessing) -> tuple[list[Any], list[Any]]:
    """Return the transforms of a crop, by its name in `CROPS`: those that draw nothing, then those that do.

    Raises UsageError for one that is not for `task`.
    """
    chosen = _choose("crop", crop, CROPS)
    if task not in chosen.tasks:
        known = ", ".join(name for name, other in CROPS.items() if task in other.tasks)
        raise UsageError(f"data.augment.crop {crop!r} is not for {task}", hint=f"there are {known}")
    return chosen.fixed(preprocessing), chosen.varied(preprocessing)


def flip_steps(augmentation: Augmentation) -> list[Any]:
    """Return the transform that mirrors, or nothing."""
    return [v2.RandomHorizontalFlip(augmentation.flip)] if _probability("flip", augmentation.flip) else []


def _random_resized(preprocessing: Preprocessing) -> list[Any]:
    size = preprocessing.input_size[1:]
    return [v2.RandomResizedCrop(size, interpolation=interpolation(preprocessing))]


def _pad(preprocessing: Preprocessing) -> list[Any]:
    _, height, width = preprocessing.input_size
    return [v2.RandomCrop((height, width), padding=[width // 8, height // 8])]


def _resize(preprocessing: Preprocessing) -> list[Any]:
    return [v2.Resize(preprocessing.input_size[1:], interpolation=interpolation(preprocessing))]


def _random_scale(preprocessing: Preprocessing) -> list[Any]:
    """As torchvision's segmentation reference, but for scales and colour.

    They are of the crop's size, and what is too small gets the mean colour around it; the reference has a size of its
    own for scales (520 pixels for crops of 480), and black.
    """
    _, height, width = preprocessing.input_size
    fill = {LabelMap: IGNORED, "others": list(_mean_colour(preprocessing))}
    return [
        v2.RandomResize(max(1, height // 2), 2 * height + 1, interpolation=interpolation(preprocessing)),
        v2.RandomCrop((height, width), pad_if_needed=True, fill=fill),
    ]


class Normalised:
    """A PIL image as normalised float32 [C, H, W].

    The numbers are those that torchvision's PILToTensor, ToDtype and Normalize give, in about a third of their time;
    ToTensor, which divides by 255, rounds otherwise in the last bit.
    """

    def __init__(self, preprocessing: Preprocessing) -> None:
        self._mean, self._std = (
            torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            for values in (preprocessing.mean, preprocessing.std)
        )

    def __call__(self, image: Image.Image) -> Tensor:
        """Return float32 [C, H, W]."""
        pixels = torch.from_numpy(np.array(image))
        return self.of_pixels(pixels if pixels.dim() == 3 else pixels[..., None])

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """Return float32 [..., C, H, W] of pixels, uint8 [..., H, W, C], on any device."""
        numbers = pixels.movedim(-1, -3).to(torch.float32, memory_format=torch.contiguous_format)
        numbers *= 1 / 255
        numbers -= sent(self._mean, pixels.device)
        numbers /= sent(self._std, pixels.device)
        return numbers


def _to_grey(preprocessing: Preprocessing) -> list[Any]:
    """Return the conversion to grey, for a model that reads grey images, or nothing."""
    channels = preprocessing.input_size[0]
    if channels not in (1, 3) or not len(preprocessing.mean) == len(preprocessing.std) == channels:
        raise UsageError(
            f"the model reads {channels} channels with {len(preprocessing.mean)} means and {len(preprocessing.std)} "
            "standard deviations; images can be given as 1 (grey) or 3 (RGB) channels, with one of each per channel"
        )
    return [v2.Grayscale()] if channels == 1 else []


def to_normalised(preprocessing: Preprocessing) -> list[Any]:
    """Return the transforms from a PIL image to normalised float32 [C, H, W]; masks pass through them."""
    scale = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
    return [*_to_grey(preprocessing), *scale, v2.Normalize(preprocessing.mean, preprocessing.std)]


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


def _nothing(preprocessing: Preprocessing) -> list[Any]:
    return []


class Crop(NamedTuple):
    """How an image comes to the model's size: without a draw, then with one; and the tasks that this is for."""

    fixed: Callable[[Preprocessing], list[Any]]
    varied: Callable[[Preprocessing], list[Any]]
    tasks: tuple[str, ...]


CROPS = {
    "random-resized": Crop(_nothing, _random_resized, ("classification",)),
    "pad": Crop(_resize, _pad, ("classification",)),
    "random-scale": Crop(_nothing, _random_scale, ("segmentation",)),
    "resize": Crop(_resize, _nothing, ("classification", "segmentation")),
}
POLICIES: dict[str, Any] = {
    "autoaugment": v2.AutoAugment,
    "randaugment": v2.RandAugment,
    "trivialaugment-wide": v2.TrivialAugmentWide,
    "augmix": v2.AugMix,
}
