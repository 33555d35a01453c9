"""The order of an epoch's samples: a function of what its generator is seeded with.

Shapes: N samples.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def balanced_order(labels: NDArray[np.int64], generator: torch.Generator) -> Tensor:
    """Return N samples, int64 [N], each class as often as any other (or once more), in random order.

    Of a large class some are left out, others in another epoch; the samples of a small one come again, none of them
    more than once more often than another.
    """
    counts = np.bincount(labels)
    members = [part for part in torch.from_numpy(labels.argsort(kind="stable")).split(counts.tolist()) if len(part)]
    quotas = torch.full((len(members),), len(labels) // len(members))
    quotas[torch.randperm(len(members), generator=generator)[: len(labels) % len(members)]] += 1
    drawn = [_drawn(own, quota, generator) for own, quota in zip(members, quotas.tolist(), strict=True)]
    return torch.cat(drawn)[torch.randperm(len(labels), generator=generator)]


def _drawn(members: Tensor, count: int, generator: torch.Generator) -> Tensor:
    rounds = -(-count // len(members))
    return torch.cat([members[torch.randperm(len(members), generator=generator)] for _ in range(rounds)])[:count]


def repeats(order: Tensor) -> Tensor:
    """Return how often each sample of an order came before in it, int64 [N]."""
    by_sample, counts = order.argsort(stable=True), order.bincount()
    first = (counts.cumsum(0) - counts)[order[by_sample]]
    return torch.empty_like(order).index_copy(0, by_sample, torch.arange(len(order)) - first)
