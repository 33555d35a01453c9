"""Mixup and cutmix on whole batches."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchvision.transforms import v2


class BatchMixer:
    """Mixes each image of a batch with its neighbour, and their labels with them.

    `mixup` and `cutmix` are the alphas of the Beta distributions (0: off); with both on, each batch gets one of the two
    by a fair draw. Random numbers come from torch's CPU generator, which the caller seeds for each step.
    """

    def __init__(self, mixup: float, cutmix: float, num_classes: int) -> None:
        mixers: list[Any] = []
        if mixup > 0:
            mixers.append(v2.MixUp(alpha=mixup, num_classes=num_classes))
        if cutmix > 0:
            mixers.append(v2.CutMix(alpha=cutmix, num_classes=num_classes))
        self._mix: Any = v2.RandomChoice(mixers) if len(mixers) > 1 else next(iter(mixers), None)

    @property
    def active(self) -> bool:
        """Whether there is anything to mix."""
        return self._mix is not None

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return mixed images [B, C, H, W] and soft labels, float32 [B, classes], from labels int64 [B]."""
        assert self.active, "an inactive mixer has no soft labels to give"
        mixed_images, soft_labels = self._mix(images, labels)
        return mixed_images, soft_labels
