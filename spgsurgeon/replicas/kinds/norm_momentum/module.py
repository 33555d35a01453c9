"""The replica of batch norm's momentum.

Shapes: what enters a batch norm is [N, C, ...]; statistics have a number a channel.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class MixedStatistics(nn.Module):
    """Normalises by the running statistics as an update from the batch at `momentum` would leave them.

    Running statistics are constants, and stay as they are.
    """

    def __init__(self, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum

    def forward(self, hidden: Tensor, entered: Tensor, norm: _BatchNorm) -> Tensor:
        """Return what leaves `norm` then, of the same shape; in eval mode, or if `norm` is frozen, `hidden`."""
        if not (self.training and norm.training) or self.momentum == 1:
            return hidden
        # By hand: torch's batch_norm has no gradient for the statistics that it is given.
        values = entered.float()
        variance, mean = torch.var_mean(values, [0, *range(2, values.dim())])
        mean, variance = self._mixed(norm.running_mean, mean), self._mixed(norm.running_var, variance)
        return normalised(values, norm, mean, (variance + norm.eps).sqrt()).to(hidden.dtype)

    def _mixed(self, running: Tensor | None, batch: Tensor) -> Tensor:
        assert running is not None
        return running.lerp(batch.to(running.dtype), self.momentum)


def normalised(values: Tensor, norm: _BatchNorm, mean: Tensor, deviation: Tensor) -> Tensor:
    """Return what `norm` gives of float32 values [N, C, ...] by a mean and a standard deviation [C]."""
    scale = norm.weight / deviation
    shape = (-1, *[1] * (values.dim() - 2))
    return _activated(values * scale.view(shape) + (norm.bias - mean * scale).view(shape), norm)


def _activated(normal: Tensor, norm: nn.Module) -> Tensor:
    """Return what follows within the layer: timm's batch norms may hold an activation."""
    for name in ("drop", "act"):
        normal = getattr(norm, name, nn.Identity())(normal)
    return normal
