"""Crops of a batch resized on any device, byte for byte as Pillow does it for each of them.

Pillow computes with integers: weights of 22 bits, a pass along the rows and one along the columns, each rounded to
bytes (`src/libImaging/Resample.c`). The weights are made on the CPU, as doubles; what the device computes is exact.

Shapes: B images of height x width, C channels; a crop's edge of `length` pixels becomes `out`, each of them a sum
over at most `taps`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode

from spgsurgeon.data.loading.transfer import sent

_BITS = 22


class _Filter(NamedTuple):
    """A function of the distance in pixels, which is zero from `support` on."""

    function: Callable[[Tensor], Tensor]
    support: float


def _triangle(x: Tensor) -> Tensor:
    return (1.0 - x.abs()).clamp(min=0.0)


def _cubic(x: Tensor) -> Tensor:
    a, x = -0.5, x.abs()
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))


_FILTERS = {InterpolationMode.BILINEAR: _Filter(_triangle, 1.0), InterpolationMode.BICUBIC: _Filter(_cubic, 2.0)}
INTERPOLATIONS = tuple(_FILTERS)
"""Those that can be done so."""


def resized_crops(images: Tensor, boxes: Tensor, size: tuple[int, int], interpolation: InterpolationMode) -> Tensor:
    """Return the crops of uint8 images [B, height, width, C] at `size` (H, W): uint8 [B, H, W, C].

    `boxes`, int64 [B, 4] on the CPU, has the top, left, height and width of each.
    """
    chosen, turned = _FILTERS[interpolation], _height_first(boxes, size)
    result = torch.empty((len(images), *size, images.shape[3]), dtype=torch.uint8, device=images.device)
    if not len(images):
        return result
    for mask, axes in ((~turned, (2, 1)), (turned, (1, 2))):
        if mask.all():
            return _passes(images, boxes, size, axes, chosen)
        if mask.any():
            here = sent(mask.nonzero().flatten(), images.device)  # picking by the mask itself would be waited for
            result[here] = _passes(images[here], boxes[mask], size, axes, chosen)
    return result


def _height_first(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Return for which crops Pillow's first pass is that along the columns, bool [B]; older ones have none such."""
    less_height, less_width = boxes[:, 2] - size[0], boxes[:, 3] - size[1]
    return (less_height > 0) & (less_height > 2 * less_width) & _pillow_turns()


@cache
def _pillow_turns() -> bool:
    """Return whether this Pillow's first pass is along the columns where that saves it work."""
    pixels = torch.arange(50 * 24 * 3).view(1, 50, 24, 3).mul(7919).remainder(256).to(torch.uint8)
    found = Image.fromarray(pixels[0].numpy()).resize((47, 5), Image.Resampling.BILINEAR)
    turned = _passes(pixels, torch.tensor([[0, 0, 50, 24]]), (5, 47), (1, 2), _FILTERS[InterpolationMode.BILINEAR])
    return torch.equal(turned[0], torch.from_numpy(np.array(found)))


def _passes(images: Tensor, boxes: Tensor, size: tuple[int, int], axes: tuple[int, int], chosen: _Filter) -> Tensor:
    """Return the crops at `size`, resampled along one of the axes 1 and 2 and then the other."""
    for axis in axes:
        images = _resampled(images, boxes[:, axis - 1], boxes[:, axis + 1], size[axis - 1], axis, chosen)
    return images


def _resampled(images: Tensor, start: Tensor, length: Tensor, out: int, axis: int, chosen: _Filter) -> Tensor:
    """Return the images with `length` pixels from `start` on made `out` along an axis; both are [B]."""
    places, weights = (sent(tensor, images.device) for tensor in _taps(start, length, out, chosen))
    shape = list(images.shape)
    shape[axis] = out
    spread = [1] * images.dim()
    spread[0], spread[axis] = len(images), out
    total = torch.full(shape, 1 << (_BITS - 1), dtype=torch.int32, device=images.device)
    for tap in range(places.shape[2]):
        taken = images.gather(axis, places[:, :, tap].reshape(spread).expand(shape))
        total += taken.to(torch.int32).mul_(weights[:, :, tap].reshape(spread))
    return (total >> _BITS).clamp_(0, 255).to(torch.uint8)


def _taps(start: Tensor, length: Tensor, out: int, chosen: _Filter) -> tuple[Tensor, Tensor]:
    """Return which pixels make each new one, int64 [B, out, taps], and their weights, int32 of 22 bits."""
    scale = length[:, None].double() / out
    spread = scale.clamp(min=1.0)
    centre = (torch.arange(out) + 0.5) * scale
    reach = chosen.support * spread
    first = (centre - reach + 0.5).long().clamp(min=0)
    end = torch.minimum((centre + reach + 0.5).long(), length[:, None])
    pixels = first[..., None] + torch.arange(int((end - first).max()))
    inside = pixels < end[..., None]
    weights = chosen.function((pixels - centre[..., None] + 0.5) * (1.0 / spread)[..., None])
    weights = torch.where(inside, weights, 0.0)
    total = torch.zeros_like(centre)
    for tap in range(weights.shape[2]):  # one after the other, as sums of doubles depend on their order
        total += weights[..., tap]
    weights = weights / total[..., None] * (1 << _BITS)
    whole = (weights + torch.where(weights < 0, -0.5, 0.5)).to(torch.int32)
    places = torch.minimum(pixels, end[..., None] - 1) + start[:, None, None]
    return places, torch.where(inside, whole, 0)
