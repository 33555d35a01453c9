"""The replica of noise.

Shapes: D = width of the hidden state; [N, ..., D] before a Linear head, [N, D, H, W] where it is a map.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class RelativeNoise(nn.Module):
    """Adds normal noise of `scale` times the root mean square of each unit's features; `channels` is D's dimension."""

    def __init__(self, scale: float, channels: int) -> None:
        super().__init__()
        self.scale, self.channels = scale, channels

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the next hidden state, of the same shape; in eval mode there is no noise."""
        if not (self.training and self.scale):
            return hidden
        power = hidden.detach().float().square().mean(self.channels, keepdim=True)
        return hidden + self.scale * power.sqrt().to(hidden.dtype) * torch.randn_like(hidden)
