"""Episodes: how long a unit's prediction stays right along its replicas (arXiv 2506.15051, eq. 6-9, 13).

Shapes: T replicas; `units` stands for one dimension or more, [N] for images, [N, H, W] for maps. Step 0 is the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Episode(NamedTuple):
    """The padded trajectories of a batch of units. Constants to autograd.

    A unit that is not counted (ignored label) has an episode like any other, but enters no sum.
    """

    valid_mask: Tensor
    """bool [T+1, units]: True while the episode runs, False once it is padding: reward (eq. 8) and mask (eq. 13)."""
    returns: Tensor
    """float32 [units]: the weighted return R (eq. 9 with section 4.1's weights)."""
    lengths: Tensor
    """int64 [units]: number of valid steps, 1..T+1. The accepted step is `lengths - 1`."""
    counted: Tensor
    """bool [units]: False if the target was `ignore_index`."""


def valid_mask(correct: Tensor) -> Tensor:
    """Return M [T+1, units] (bool) from `correct` [T+1, units] (bool): M_0 = 1, M_{t+1} = M_t correct_t (eq. 13)."""
    if correct.shape[0] == 1:
        return torch.ones_like(correct)
    return torch.cat([torch.ones_like(correct[:1]), correct[:-1]]).cumprod(0, dtype=torch.int32).bool()


def weighted_sum(steps: Tensor, weights: Sequence[float]) -> Tensor:
    """Return `steps[0] + sum_t weights[t-1] steps[t]` over the first dimension (lambda_0 = 1)."""
    # Python scalars on purpose: a tensor of weights would be copied to the device, and waited for, at every step.
    total, *later = steps.unbind(0)
    for weight, step in zip(weights, later, strict=True):
        total = total.add(step, alpha=weight)
    return total


def play_episodes(correct: Tensor, counted: Tensor, weights: Sequence[float]) -> Episode:
    """Return the episodes of a batch from which predictions are `correct` (bool [T+1, units])."""
    mask = valid_mask(correct)
    return Episode(
        valid_mask=mask,
        returns=weighted_sum(mask.to(torch.float32), weights),
        lengths=mask.sum(0),
        counted=counted,
    )
