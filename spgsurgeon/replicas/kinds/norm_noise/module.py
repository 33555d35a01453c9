"""The replica of noise on a batch norm's statistics.

Shapes: what enters a batch norm is [N, C, ...]; statistics, and noise, have a number a channel. T replicas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spgsurgeon.replicas.kinds.norm_momentum.module import normalised
from spgsurgeon.replicas.stacking import ReplicaChain


class NoisyStatistics(nn.Module):
    """Normalises by the batch's statistics with `scale` times the noise of its step, the sum of all steps' up to it."""

    def __init__(self, scale: float, step: int) -> None:
        super().__init__()
        self.scale, self.step = scale, step

    def forward(self, hidden: Tensor, entered: Tensor, norm: _BatchNorm, noise: Tensor) -> Tensor:
        """Return what leaves `norm` then, of the same shape; in eval mode, or if `norm` is frozen, `hidden`."""
        if not (self.training and norm.training and self.scale):
            return hidden
        values = entered.float()
        variance, mean = torch.var_mean(values, [0, *range(2, values.dim())], correction=0)
        shift, log_scale = self.scale * noise[self.step - 1]
        deviation = (variance + norm.eps).sqrt()
        return normalised(values, norm, mean + shift * deviation, deviation * log_scale.exp()).to(hidden.dtype)


class NoiseChain(ReplicaChain):
    """Its replicas go by one walk of noise, [T, 2, C] of mean and deviation, so that the noise of steps adds up."""

    def forward(
        self, hidden: Tensor, *beside: Any, last: int | None = None, recompute: bool = False
    ) -> tuple[Tensor, ...]:
        """Return the hidden states; see `ReplicaChain`."""
        noise = torch.randn(len(self), 2, hidden.shape[1], device=hidden.device).cumsum(0)
        return super().forward(hidden, *beside, noise, last=last, recompute=recompute)
