"""A made-up kind of replicas: all that the package needs to know of one, in a file."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from spgsurgeon.replicas.kinds.kind import HeadReplicas
from spgsurgeon.replicas.places import Place
from spgsurgeon.sections import NonNegative


class GaussianNoise(nn.Module):
    """Adds noise in train mode; in eval mode, and in what is stripped, there is none."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the next hidden state, of the same shape."""
        return hidden + self.scale * torch.randn_like(hidden) if self.training else hidden


class Noise(HeadReplicas):
    """Replicas that add up noise."""

    kind: Literal["noise"] = "noise"
    """`noise`: each replica adds Gaussian noise to what the head reads."""
    scale: NonNegative = 0.1
    """Standard deviation of the noise that each step adds."""

    accepts: ClassVar[str | None] = "noise"

    def replica(self, head: nn.Module, place: Place, step: int) -> nn.Module:
        """See `HeadReplicas`."""
        return GaussianNoise(self.scale)

    def step_values(self) -> list[float]:
        """Return the standard deviation of what has been added up after steps 0..T."""
        return [self.scale * t**0.5 for t in range(self.replicas + 1)]
