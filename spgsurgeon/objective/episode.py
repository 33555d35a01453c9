"""Episodes: how long a unit's prediction stays right along its replicas (arXiv 2506.15051, eq. 6-9, 13).

Shapes: T replicas; `units` stands for one dimension or more, [N] for images, [N, H, W] for maps. Step 0 is the base.
In a mesh the steps are its cells, T + 1 of them; the first axis is the slowest. An episode is a walk there that goes
forward along an axis with each step. A cell is valid if no walk to it ends before: if all cells that it comes from are
right. With one axis, that is eq. 13.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import NamedTuple, cast

import torch
from torch import Tensor

Weights = Sequence[float] | Sequence[Sequence[float]]
"""Weights of the steps 1..T of a chain, or such of each axis of a mesh, whose cells have the products."""


class Episode(NamedTuple):
    """The padded trajectories of a batch of units. Constants to autograd.

    A unit that is not counted (ignored label) has an episode like any other, but enters no sum.
    """

    valid_mask: Tensor
    """bool [T+1, units]: True while the episode runs, False once it is padding: reward (eq. 8) and mask (eq. 13)."""
    returns: Tensor
    """float32 [units]: the weighted return R (eq. 9 with section 4.1's weights)."""
    lengths: Tensor
    """int64 [units]: number of valid steps, 1..T+1. The accepted step of a chain is `lengths - 1`."""
    counted: Tensor
    """bool [units]: False if the target was `ignore_index`."""


def by_axis(weights: Weights) -> list[list[float]]:
    """Return the weights of each axis; a chain has one."""
    if all(isinstance(weight, int | float) for weight in weights):
        return [[*cast(Sequence[float], weights)]]
    return [[*axis] for axis in cast(Sequence[Sequence[float]], weights)]


def shape_of(weights: Weights) -> tuple[int, ...]:
    """Return how many steps each axis has that has these weights."""
    return tuple(len(axis) + 1 for axis in by_axis(weights))


def weights_of_steps(weights: Weights) -> list[float]:
    """Return the weight of every step or cell, the first of which, the base, has 1."""
    return [prod(cell) for cell in product(*([1.0, *axis] for axis in by_axis(weights)))]


def valid_mask(correct: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Return M [T+1, units] (bool) from `correct` [T+1, units] (bool): M_0 = 1, M_{t+1} = M_t correct_t (eq. 13).

    `shape` is that of a mesh, steps by axis; M of a cell is 1 if all cells are right that a walk to it can come by.
    """
    if correct.shape[0] == 1:
        return torch.ones_like(correct)
    if shape is None or len(shape) == 1:
        return torch.cat([torch.ones_like(correct[:1]), correct[:-1]]).cumprod(0, dtype=torch.int32).bool()
    right = correct.unflatten(0, tuple(shape))
    for axis in range(len(shape)):
        right = right.cumprod(axis, dtype=torch.int32)  # up to a cell and with it
    mask = torch.ones_like(right)
    for axis, steps in enumerate(shape):
        before = right.narrow(axis, 0, steps - 1)
        mask = mask * torch.cat([torch.ones_like(right.narrow(axis, 0, 1)), before], axis)
    return mask.flatten(0, len(shape) - 1).bool()


def weighted_sum(steps: Tensor, weights: Sequence[float]) -> Tensor:
    """Return `sum_t weights[t] steps[t]` over the first dimension; `weights[0]` is 1 (lambda_0)."""
    # Python scalars on purpose: a tensor of weights would be copied to the device, and waited for, at every step.
    total, *later = steps.unbind(0)
    for weight, step in zip(weights[1:], later, strict=True):
        total = total.add(step, alpha=weight)
    return total


def play_episodes(correct: Tensor, counted: Tensor, weights: Weights) -> Episode:
    """Return the episodes of a batch from which predictions are `correct` (bool [T+1, units])."""
    mask = valid_mask(correct, shape_of(weights))
    return Episode(
        valid_mask=mask,
        returns=weighted_sum(mask.to(torch.float32), weights_of_steps(weights)),
        lengths=mask.sum(0),
        counted=counted,
    )
