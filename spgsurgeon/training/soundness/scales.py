"""How large things look in training and in evaluation: the train-test resolution discrepancy (arXiv 1906.06423)."""

from __future__ import annotations

from spgsurgeon.models import Preprocessing

_CROP = 0.67
"""The mean share of a side that a random resized crop takes: its area is 8 to 100 % of the image, drawn evenly."""
_ALIKE = (0.75, 1.33)
_MULTIPLE = 32  # pixels
_NEARLY_WHOLE = 0.9
"""The share of a side from which on nothing is said of what evaluation cuts off."""


def said_of_crop(crop: str, scored: Preprocessing) -> list[str]:
    """Return the note on scores of the middle of images that training, with this `crop`, sees whole."""
    if scored.crop_pct >= _NEARLY_WHOLE or crop == "random-resized":
        return []
    (height, width), (larger, wider) = scored.input_size[1:], scored.resized_to
    return [
        f"images are scored by the middle {height} x {width} of {larger} x {wider} pixels (crop_pct "
        f"{scored.crop_pct:g}); data.eval_crop_pct=1 scores them whole"
    ]


def said_of_scale(crop: str, trained: Preprocessing, scored: Preprocessing) -> list[str]:
    """Return the note on images that evaluation shows much larger or smaller than training, which has this `crop`.

    The usual evaluation at the size of training, with a `crop_pct` of 0.875 after random resized crops, is not noted.
    """
    shown = min(trained.input_size[1:]) / (_CROP if crop == "random-resized" else 1)
    scale = min(scored.resized_to) / shown
    if _ALIKE[0] <= scale <= _ALIKE[1]:
        return []
    nearer = max(_MULTIPLE, round(shown * scored.crop_pct / _MULTIPLE) * _MULTIPLE)
    advice = f"; data.eval_image_size={nearer} would be nearer" if nearer != scored.input_size[1] else ""
    size, larger = (f"{one.input_size[1]} x {one.input_size[2]}" for one in (trained, scored))
    factor = f"{1 / scale:.2g} times smaller" if scale < 1 else f"{scale:.2g} times larger"
    return [
        f"things look {factor} in evaluation ({larger} pixels, crop_pct {scored.crop_pct:g}) than in training ({size}, "
        f"crop {crop}){advice}"
    ]
