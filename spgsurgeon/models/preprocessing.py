"""How a model wants its pictures: size, normalisation, interpolation and the crop used for evaluation."""

from __future__ import annotations

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Preprocessing:
    """What happens to a picture before the model sees it.

    `input_size` is (channels, height, width) in pixels; `mean` and `std` are per channel on the 0..1 scale; evaluation
    resizes the shorter edge to height / `crop_pct` and takes the centre crop; for segmentation it crops nothing.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 0.875

    def at(self, image_size: int | None) -> Preprocessing:
        """Return the same preprocessing at another (square) image size; None keeps it as it is."""
        return self if image_size is None else replace(self, input_size=(self.input_size[0], image_size, image_size))
