"""The replica that drops tokens.

Shapes: tokens are [N, L, D], of which the first few (class, registers) are of no patch; P = the number of the others.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.replicas.stacking import ReplicaChain


class DropTokens(nn.Module):
    """Drops the tokens of patches whose draw is below `rate`, all but the `prefix` first; one of them always stays.

    Copies of tokens that stay take their places, each as often as any other, up to one: so the shape is kept, and
    neither attention nor pooling meets a token that is none of the image's.
    """

    def __init__(self, rate: float, prefix: int) -> None:
        super().__init__()
        self.rate, self.prefix = rate, prefix

    def forward(self, hidden: Tensor, whole: Tensor, draws: Tensor) -> Tensor:
        """Return tokens [N, L, D] of the `whole` image's, by `draws` [N, L]; in eval mode those of `hidden`."""
        if not (self.training and self.rate):
            return hidden
        first, patches = whole[:, : self.prefix], whole[:, self.prefix :]
        index = kept_tokens(draws[:, self.prefix :], self.rate)
        return torch.cat([first, patches.gather(1, index[..., None].expand_as(patches))], dim=1)


class TokenChain(ReplicaChain):
    """Its replicas go by the same draws, so that what one drops is gone in all that follow."""

    def forward(
        self, hidden: Tensor, *beside: Any, last: int | None = None, recompute: bool = False
    ) -> tuple[Tensor, ...]:
        """Return the hidden states; see `ReplicaChain`."""
        draws = torch.rand(hidden.shape[:2], device=hidden.device)
        return super().forward(hidden, hidden, draws, last=last, recompute=recompute)


def kept_tokens(draws: Tensor, rate: float) -> Tensor:
    """Return which token [N, P] stands in each place: its own if its draw is `rate` or more, else one that stays."""
    surest = draws.argsort(dim=1, descending=True)  # those that stay are the first
    staying = (draws >= rate).sum(1, keepdim=True).clamp(min=1)
    places = torch.arange(draws.shape[1], device=draws.device).expand_as(draws)
    return torch.where(surest.argsort(dim=1) < staying, places, surest.gather(1, places % staying))
