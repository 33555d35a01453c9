"""The replicas of depth, made of blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from spgsurgeon.models import ENCODER_LAYER, DepthSite
from spgsurgeon.replicas.kinds.depth.blocks import (
    ConvolutionalBlock,
    GatedLayer,
    bottleneck,
    inverted_residual,
    like,
    zero_all,
    zero_last,
)
from spgsurgeon.replicas.stacking import ReplicaChain

_CONVOLUTIONAL: dict[str, Callable[..., ConvolutionalBlock]] = {
    "bottleneck": bottleneck,
    "inverted-residual": inverted_residual,
}


class DepthReplica(nn.Sequential):
    """Replica t: the blocks that step t is deeper than step t - 1. Together they start as the identity."""

    def forward(self, hidden: Tensor, *beside: Any) -> Tensor:
        """Return the next hidden state; each block also gets what is `beside`."""
        for block in self:
            hidden = block(hidden, *beside)
        return hidden


def depth_chain(stage: nn.Module, *, replicas: int, blocks: int, make_block: Callable[[], nn.Module]) -> ReplicaChain:
    """Return `replicas` modules of `blocks` new blocks each, on the device and of the dtype of `stage`.

    `make_block` gives a block that takes and gives hidden states of one shape, and starts as the identity.
    """
    parameter = next(stage.parameters())
    chain = [DepthReplica(*(make_block() for _ in range(blocks))) for _ in range(replicas)]
    return ReplicaChain(replica.to(parameter.device, parameter.dtype) for replica in chain)


def block_maker(stage: nn.Module, site: DepthSite, block: str, init: str) -> Callable[[], nn.Module]:
    """Return what makes new blocks for `site`, which follow `stage`, the base's last block, and are like it."""

    def make() -> nn.Module:
        new: nn.Module
        last: Sequence[str]
        if block == ENCODER_LAYER:
            new, last = GatedLayer(like(stage), site.width), ()
        elif block in _CONVOLUTIONAL:
            new, last = _CONVOLUTIONAL[block](site.width, stage, activated=site.activated), ConvolutionalBlock.last
        else:
            new, last = like(stage, site.scales), site.last
        return zero_all(new) if init == "all-zero" else zero_last(new, last)

    return make
