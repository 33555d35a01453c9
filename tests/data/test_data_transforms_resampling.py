"""Crops resized in batches: byte for byte what Pillow makes of each."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms import InterpolationMode

from spgsurgeon.data.transforms.resampling import INTERPOLATIONS, _pillow_turns, resized_crops

PILLOWS = {
    InterpolationMode.BILINEAR: Image.Resampling.BILINEAR,
    InterpolationMode.BICUBIC: Image.Resampling.BICUBIC,
}


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(32, 32), (7, 50), (90, 13), (24, 40)])
def test_every_byte_is_pillows(interpolation: InterpolationMode, size: tuple[int, int]) -> None:
    random = np.random.default_rng(0)
    height, width, count = 40, 60, 60
    pixels = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    pixels[::3] = np.where(pixels[::3] > 127, 255, 0)  # beyond whose edges bicubic weights go
    boxes = []
    for number in range(count):
        tall, wide = random.integers(1, height + 1), random.integers(1, width + 1)
        boxes.append([random.integers(0, height - tall + 1), random.integers(0, width - wide + 1), tall, wide])
        if number == 0:
            boxes[0] = [0, 0, height, width]
    found = resized_crops(torch.from_numpy(pixels), torch.tensor(boxes), size, interpolation)
    for image, (top, left, tall, wide), resized in zip(pixels, boxes, found, strict=True):
        crop = Image.fromarray(image).crop((left, top, left + wide, top + tall))
        expected = np.asarray(crop.resize((size[1], size[0]), PILLOWS[interpolation]))
        assert np.array_equal(resized.numpy(), expected)


def test_no_pictures_give_none() -> None:
    empty = torch.empty((0, 20, 20, 3), dtype=torch.uint8)
    found = resized_crops(empty, torch.empty((0, 4), dtype=torch.int64), (8, 9), next(iter(INTERPOLATIONS)))
    assert found.shape == (0, 8, 9, 3)


def test_pictures_are_picked_by_number() -> None:
    """By a mask, a GPU would have to say first how many there are."""
    picked: list[torch.dtype] = []

    class Picks(TorchDispatchMode):
        def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
            if function._schema.name in ("aten::index", "aten::index_put_") and arguments[0].dtype == torch.uint8:
                picked.extend(index.dtype for index in arguments[1])
            return function(*arguments, **(options or {}))

    boxes = torch.tensor([[0, 0, 50, 24], [0, 0, 5, 50]])  # the first pass goes along the columns of the one only
    with Picks():
        resized_crops(torch.zeros(2, 50, 50, 3, dtype=torch.uint8), boxes, (5, 47), InterpolationMode.BILINEAR)
    assert set(picked) <= {torch.int64}
    assert len(picked) == (4 if _pillow_turns() else 0)
