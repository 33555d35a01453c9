"""The replica of stochastic depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SkipBlock(nn.Module):
    """Lets samples skip a block at `rate`: what entered it stands in for what left it.

    A sample that skipped it in one step has skipped it in all later ones. What is kept is not scaled up: the block's
    output is what inference uses.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, hidden: Tensor, entered: Tensor, block: nn.Module) -> Tensor:
        """Return the next hidden state [N, ...] of the block's output; in eval mode nothing is skipped."""
        if not (self.training and self.rate):
            return hidden
        draws = torch.rand(len(hidden), *[1] * (hidden.dim() - 1), device=hidden.device)
        return torch.where(draws < self.rate, entered, hidden)
