"""From an image and its mask to what a segmentation model sees: augmented together for training, plain for evaluation.

Shapes: an image is float32 [C, H, W], its mask int64 [H, W]. All random numbers come from torch's CPU generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from spgsurgeon.data.transforms.augmentation import Augmentation, crop_steps, flip_steps, interpolation, to_normalised
from spgsurgeon.data.transforms.masks import LabelMap
from spgsurgeon.errors import UsageError
from spgsurgeon.models import Preprocessing

JointTransform = Callable[[Image.Image, Tensor], tuple[Tensor, Tensor]]


def joint_training_transform(preprocessing: Preprocessing, augmentation: Augmentation) -> JointTransform:
    """Return the augmenting transform: PIL image and mask to a normalised image and the mask that goes with it.

    Both come out at the size in `preprocessing`. Refuses crops that are for labelled images only, and `policy` and
    `erase`, which would change what a pixel shows but not what its mask says.
    """
    for key in ("policy", "erase"):
        if getattr(augmentation, key):
            raise UsageError(
                f"data.augment.{key} is for labelled images; with masks there are crop and flip",
                hint=f"leave data.augment.{key} out",
            )
    fixed, varied = crop_steps(augmentation.crop, "segmentation", preprocessing)
    return _JointTransform([*fixed, *varied, *flip_steps(augmentation), *to_normalised(preprocessing)])


def joint_evaluation_transform(preprocessing: Preprocessing) -> JointTransform:
    """Return the transform for evaluation: the shorter edge is resized to the height in `preprocessing`.

    Nothing is cropped or stretched, as in torchvision's reference, so images may come out in different sizes; the
    width in `preprocessing` and its `crop_pct` say nothing here.
    """
    resize = v2.Resize(preprocessing.input_size[1], interpolation=interpolation(preprocessing))
    return _JointTransform([resize, *to_normalised(preprocessing)])


class _JointTransform:
    """Takes a mask through torchvision's transforms beside its image."""

    def __init__(self, steps: list[Any]) -> None:
        self._steps = v2.Compose([*steps, v2.ToPureTensor()])

    def __call__(self, image: Image.Image, mask: Tensor) -> tuple[Tensor, Tensor]:
        picture, moved = self._steps(image, LabelMap(mask))
        return picture, moved
