"""Augmentation of whole batches on any device, with the numbers that single images get on the CPU.

An image's random numbers are drawn as torchvision's transforms draw them for it alone, and what is done with them
moves bytes, or computes number by number with the same functions: the results are equal bit for bit.

Shapes: B images; pixels are kept as uint8 [N, height, width, 3] and come out as float32 [B, 3, H, W].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from spgsurgeon.data.loading.transfer import sent
from spgsurgeon.data.transforms.augmentation import Normalised, StagedTransform
from spgsurgeon.data.transforms.resampling import INTERPOLATIONS, resized_crops
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import isolated_generator

_DRAWN = 9  # top, left, height and width of the crop; whether it is mirrored; as much again of what is erased


class BatchedAugmentation:
    """A transform's varied stage for batches, after its fixed one has made all images of `size` (height, width).

    Crops, flips and erasing can be done so; `check_batched` refuses anything else.
    """

    def __init__(self, transform: StagedTransform, size: tuple[int, int], device: torch.device) -> None:
        self._crop, self._flip, self._erasing = (
            next((step for step in transform.steps if isinstance(step, kind)), None)
            for kind in (v2.RandomCrop | v2.RandomResizedCrop, v2.RandomHorizontalFlip, v2.RandomErasing)
        )
        (self._normalised,) = (step for step in transform.steps if isinstance(step, Normalised))
        self._out = size if self._crop is None else tuple(self._crop.size)
        self._before = torch.empty((3, *size), dtype=torch.uint8)  # what transforms ask for their input's size
        self._after = torch.empty((3, *self._out), dtype=torch.uint8)
        self._device = device

    def __call__(self, pixels: Tensor, pictures: Tensor, seeds: Sequence[int]) -> Tensor:
        """Return images number `pictures`, int64 [B], of `pixels`, augmented; both are on the device.

        Each of the `seeds` is that of an image. The caller's generator is left alone.
        """
        images = pixels[pictures]
        if self._crop or self._flip or self._erasing:
            drawn = self._draw(seeds)
            if isinstance(self._crop, v2.RandomResizedCrop):
                images = resized_crops(images, drawn[:, :4], self._out, self._crop.interpolation)
                drawn[:, :2] = 0  # what is left to do with them is to mirror them
            drawn = sent(drawn, self._device)
            if self._flip or isinstance(self._crop, v2.RandomCrop):
                images = self._moved(images, drawn[:, :5])
        images = self._normalised.of_pixels(images)
        return self._erased(images, drawn[:, 5:]) if self._erasing else images

    def _draw(self, seeds: Sequence[int]) -> Tensor:
        """Return the random numbers of each image, int64 [B, 9]."""
        with isolated_generator(0):
            drawn = [number for seed in seeds for number in self._drawn_for(seed)]
        return torch.tensor(drawn, dtype=torch.int64).view(-1, _DRAWN)

    def _drawn_for(self, seed: int) -> list[int]:
        torch.default_generator.manual_seed(seed)
        crop, flipped, box = [0, 0, *self._out], 0, [0, 0, 0, 0]
        if self._crop is not None:
            found = self._crop.make_params([self._before])
            left, top = found.get("padding", [0, 0])[:2]
            crop = [found["top"] - top, found["left"] - left, found["height"], found["width"]]
        if self._flip is not None:
            flipped = int(_applies(self._flip))
        if self._erasing is not None and _applies(self._erasing):
            erased = self._erasing.make_params([self._after])
            if erased["v"] is not None:
                box = [erased[key] for key in "ijhw"]
        return [*crop, flipped, *box]

    def _moved(self, images: Tensor, drawn: Tensor) -> Tensor:
        """Return the images cropped and mirrored; what lies outside of them is black. uint8 [B, H, W, 3]."""
        count, height, width, _ = images.shape
        rows = torch.arange(self._out[0], device=self._device) + drawn[:, 0, None]
        columns = torch.arange(self._out[1], device=self._device).expand(count, -1)
        columns = torch.where(drawn[:, 4, None] > 0, columns.flip(1), columns) + drawn[:, 1, None]
        inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
        places = rows.clamp(0, height - 1)[:, :, None] * width + columns.clamp(0, width - 1)[:, None, :]
        places += torch.arange(count, device=self._device)[:, None, None] * (height * width)
        taken = images.view(-1, 3).index_select(0, places.view(-1)).view(count, *self._out, 3)
        return taken.mul_(inside[..., None])

    def _erased(self, images: Tensor, boxes: Tensor) -> Tensor:
        """Return the images with zeros in their boxes: [B, 4], top, left, height, width."""
        top, left, height, width = boxes.T[:, :, None]
        rows, columns = (torch.arange(edge, device=self._device)[None] for edge in images.shape[2:])
        inside = ((rows >= top) & (rows < top + height))[:, :, None] & ((columns >= left) & (columns < left + width))[
            :, None, :
        ]
        return images.masked_fill_(inside[:, None], 0.0)


def check_batched(transform: StagedTransform) -> None:
    """Raise UsageError, naming what can be done instead, for a transform that can't be done in batches."""
    for step in transform.steps:
        name = _CALLED.get(type(step), type(step).__name__)
        if isinstance(step, v2.RandomResizedCrop) and step.interpolation not in INTERPOLATIONS:
            name = f"{step.interpolation.value} resizing"
        elif isinstance(step, _DONE):
            continue
        raise UsageError(
            f"data.cache=device augments in batches, which {name} is not done in",
            hint="crop, flip and erase of data.augment are (mixup and cutmix too); data.cache=memory takes everything",
        )


_DONE = (v2.RandomCrop, v2.RandomResizedCrop, v2.RandomHorizontalFlip, Normalised, v2.RandomErasing)
_CALLED: dict[type, str] = {v2.Grayscale: "the conversion to grey"}


def _applies(step: Any) -> bool:
    """Draw whether a transform is applied, as torchvision does."""
    return bool(torch.rand(1) < step.p)
