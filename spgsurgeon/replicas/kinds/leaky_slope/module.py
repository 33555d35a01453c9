"""The replica of the negative slope."""

from __future__ import annotations

from torch import Tensor, nn


class Leak(nn.Module):
    """Adds `slope` to the slope below zero of an activation, of which only what entered and what left it matter."""

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope

    def forward(self, hidden: Tensor, entered: Tensor, activation: nn.Module) -> Tensor:
        """Return the next hidden state, of the same shape; in eval mode nothing is added."""
        return hidden + self.slope * entered.clamp(max=0) if self.training and self.slope else hidden
