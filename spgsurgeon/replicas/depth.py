"""Depth-TRP (arXiv 2506.15051, section 4.3): each replica is the network grown by a few residual blocks.

Hidden states are what leaves the last stage; pooling and classifier are the shared head.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from spgsurgeon.errors import UsageError
from spgsurgeon.replicas.dropout import check_replicas
from spgsurgeon.replicas.places import Place
from spgsurgeon.replicas.stacking import ReplicaChain


class DepthReplica(nn.Sequential):
    """Replica t: the blocks that step t is deeper than step t - 1. Together they start as the identity."""


def depth_replicas(
    stage: nn.Module, place: Place, *, replicas: int, blocks: int, make_block: Callable[[], nn.Module]
) -> ReplicaChain:
    """Return `replicas` modules of `blocks` new blocks each, on the device and of the dtype of `stage`.

    `make_block` gives a block that takes and gives hidden states of one shape, and starts as the identity. Raises
    UsageError where there is no replica or no block.
    """
    check_replicas(replicas)
    if blocks < 1:
        raise UsageError(f"{blocks} blocks: a replica has at least one", hint="leave it out for the family's default")
    parameter = next(stage.parameters())
    chain = [DepthReplica(*(make_block() for _ in range(blocks))) for _ in range(replicas)]
    return ReplicaChain(replica.to(parameter.device, parameter.dtype) for replica in chain)
