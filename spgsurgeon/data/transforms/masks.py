"""Masks: the class of each pixel, as they lie in files and as transforms move them about.

Shapes: a mask is int64 [H, W], the class of each pixel, `IGNORED` where that stands for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from spgsurgeon.data.sources.image_decoding import AS_IS, Decoding, opened
from spgsurgeon.errors import DataError

IGNORED = -100
"""What cross entropy and `spg_loss` leave out unless they are told otherwise."""
BORDER = 255
"""The id that VOC gives to borders and unlabelled pixels, and most others after it, unless it is a class of theirs."""
_SCALED = {"L;2": 85, "L;4": 17}  # how Pillow makes 8 bits of grey out of 2 or 4
NO_VALUES: Mapping[int, int] = MappingProxyType({})
"""For masks whose values are the classes."""
_INDEXED = ("P", "L", "1", "I;16", "I;16B", "I")


class LabelMap(tv_tensors.Mask):  # type: ignore[misc]  # torchvision comes without types
    """A mask in the hands of torchvision's transforms. Resizing takes the nearest pixel, by pixel centres.

    So does Pillow, hence torchvision's reference, up to pixels that are as far from one as from another; for its own
    masks torchvision counts from the pixels' corners, which moves them by half a pixel against the image.
    """


def _resize(mask: LabelMap, size: list[int] | None, max_size: int | None = None, **unused: Any) -> LabelMap:
    resized = F.resize_image(mask.as_subclass(Tensor)[None], size, InterpolationMode.NEAREST_EXACT, max_size)
    return LabelMap(resized[0])


F.register_kernel(F.resize, LabelMap)(_resize)


def read_mask(
    path: Path,
    classes: int,
    ignore: Iterable[int] = (),
    size: tuple[int, int] | None = None,
    *,
    values: Mapping[int, int] = NO_VALUES,
    decoding: Decoding = AS_IS,
) -> Tensor:
    """Return the class ids in an image file, those in `ignore` and `BORDER` as `IGNORED`.

    The file holds one number a pixel: grey of any depth, or indices into a palette; `values` says the class of those
    that are not class ids. Raises DataError for colours,
    for an id that is none of the `classes`, and, before it is decoded, where the mask has not `size` (width, height)
    pixels, those of its image; what the decoder raises for a damaged file.
    """
    with opened(path, decoding) as image:
        if size is not None and image.size != size:
            raise DataError(
                f"it has {size[0]} x {size[1]} pixels, its mask {path} {image.width} x {image.height}",
                hint="repair or remove it: a mask has a class id for each pixel of its image",
            )
        if image.mode not in _INDEXED:
            raise DataError(
                f"its mask {path} is an image in {image.mode}",
                hint="a mask has a class id for each pixel: a PNG of palette indices, or of 8 or 16 bits of grey",
            )
        scale = _SCALED.get(_raw_mode(image), 1)
        ids = torch.from_numpy(np.array(image, dtype=np.int64) // scale)
    return settle(ids, classes, ignore, f"its mask {path}", values)


def _raw_mode(image: Image.Image) -> str:
    """Return how the pixels lie in the file; empty if the decoder does not say."""
    tile = getattr(image, "tile", None)
    arguments = tile[0][3] if tile else ""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def settle(
    ids: Tensor, classes: int, ignore: Iterable[int], name: str, values: Mapping[int, int] = NO_VALUES
) -> Tensor:
    """Return the ids with those in `ignore` and `BORDER` as `IGNORED`, and the class that `values` says where it does.

    Raises DataError for an id of no class.
    """
    border = [BORDER] if classes <= BORDER and BORDER not in values else []
    unscored = torch.isin(ids, torch.tensor([*border, *ignore], dtype=ids.dtype))
    places = [(ids == value, label) for value, label in values.items()]  # all of them before any is changed
    for pixels, label in places:
        ids[pixels] = label
    ids[unscored] = IGNORED
    strange = ids[((ids < 0) & (ids != IGNORED)) | (ids >= classes)]
    if len(strange):
        raise DataError(
            f"{name} has the class id {strange[0].item()}, classes are 0 to {classes - 1}",
            hint="repair it, say the class that the value stands for (data.mask_values={255: 1}; eval: --mask-value "
            "255=1), or ignore values that stand for no class (data.ignore; eval: --ignore)",
        )
    return ids
