"""How a model wants its images: size, normalisation, interpolation and the crop used for evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from spgsurgeon.errors import ArchitectureError, UsageError


@dataclass(frozen=True)
class Preprocessing:
    """What happens to an image before the model sees it.

    `input_size` is (channels, height, width) in pixels; `mean` and `std` are per channel on the 0..1 scale. Evaluation
    resizes to `input_size` / `crop_pct` and takes the centre crop; `crop_mode` says what is resized: the shorter edge
    ("center"), each edge by itself ("squash"), or the longer edge, with the mean colour around what is then too small
    ("border"). For segmentation the shorter edge is resized to the height, and nothing is cropped.
    """

    input_size: tuple[int, int, int] = (3, 224, 224)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    interpolation: str = "bilinear"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    test_input_size: tuple[int, int, int] | None = None
    """What the weights were tested at, if that is another size than `input_size`, which they were trained at."""
    test_crop_pct: float | None = None
    """`crop_pct` at that size, if it is another one."""
    crop_rounds_down: bool = False
    """Whether half a pixel to the left of the crop (or above it) is left out, as by transformers; else it is rounded to
    an even number, as by torchvision."""

    def at_test_size(self) -> Preprocessing | None:
        """Return the same preprocessing at the size that the weights were tested at; None if they have no other."""
        if self.test_input_size is None and self.test_crop_pct is None:
            return None
        size, share = self.test_input_size or self.input_size, self.test_crop_pct or self.crop_pct
        return replace(self, input_size=size, crop_pct=share)

    def at(self, image_size: int | None) -> Preprocessing:
        """Return the same preprocessing at another (square) image size; None keeps it as it is."""
        return self if image_size is None else replace(self, input_size=(self.input_size[0], image_size, image_size))

    def cropped(self, share: float | None) -> Preprocessing:
        """Return the same preprocessing with another `crop_pct`; None keeps it as it is."""
        return self if share is None else replace(self, crop_pct=share)

    @property
    def resized_to(self) -> tuple[int, int]:
        """Height and width, in pixels, that evaluation resizes to before it cuts the centre out."""
        height, width = (math.floor(side / self.crop_pct) for side in self.input_size[1:])
        return height, width

    def limited(
        self, max_length: int | None, max_seconds: float | None = None, *, stops: bool = False
    ) -> Preprocessing:
        """Return the same preprocessing. Raises UsageError for tokens and seconds, which images don't have."""
        if max_length is not None or max_seconds is not None or stops:
            kind = "seconds is for models of sounds" if max_seconds is not None else "tokens is for models of texts"
            raise UsageError(f"a number of {kind}, not of images", hint="leave it out")
        return self


def of_images(preprocessing: object, name: str) -> Preprocessing:
    """Return the preprocessing of the model `name`. Raises ArchitectureError unless it takes images."""
    if isinstance(preprocessing, Preprocessing):
        return preprocessing
    raise ArchitectureError(f"this is for models of images, and {name} takes none")


def for_channels(values: Sequence[float], channels: int) -> tuple[float, ...]:
    """Return one value a channel; where there is another number of them their mean, as timm's loader has it."""
    return tuple(values) if len(values) == channels else (sum(values) / len(values),) * channels
