"""How large weights can have become, from the norms of gradients alone: so that not each step needs to look at them.

Finite weights become infinite only by an update that is too large. What torch's SGD does to a weight is bounded by the
gradients, its momentum and its settings, what Adam and AdamW do by their settings alone: so a few numbers on the host
prove that no weight can have overflowed. Of other optimizers nothing is known, and the bound is infinite.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

_MARGIN = 1e-4  # of the root of a dtype's largest number: the squares of 1e8 weights can be added up
_LEAST_EPS = 1e-15  # with less, a second moment that underflows to zero would divide by next to nothing


class Rates(NamedTuple):
    """What the updates of one step are bounded by: the largest of all groups."""

    lr: float
    decay: float
    momentum: float
    ratio: float | None
    """Of a first moment to the root of a second one; None where there is no second one."""


class WeightBound:
    """An upper bound on the absolute value of every weight. `known` is whether it says that all are finite."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._follows = type(optimizer) in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        self._limit = _MARGIN * min((math.sqrt(torch.finfo(p.dtype).max) for p in parameters), default=math.inf)
        self._weight = self._moment = math.inf

    @property
    def known(self) -> bool:
        """Whether all weights are finite for certain."""
        return self._weight < self._limit and self._moment < self._limit

    def seen(self, largest: float) -> None:
        """Start from a look at all weights and momenta, whose norms are at most `largest`."""
        self._weight = self._moment = largest

    def rates(self) -> Rates | None:
        """Return what an update by the optimizer as it is set now is bounded by, None where nothing is known."""
        if not self._follows:
            return None
        groups: list[dict[str, Any]] = self._optimizer.param_groups
        return Rates(
            lr=max(group["lr"] for group in groups),
            decay=max(group["weight_decay"] for group in groups),
            momentum=max(group.get("momentum", 0.0) for group in groups),
            ratio=max((_largest_ratio(adam["betas"], adam["eps"]) for adam in groups if "betas" in adam), default=None),
        )

    def follow(self, largest: float, rates: Rates | None) -> None:
        """Take into account an update by gradients whose norms are at most `largest`."""
        if rates is None or not math.isfinite(largest):
            self._weight = math.inf
            return
        lr, decay, momentum, ratio = rates
        if ratio is None:
            gradient = largest + decay * self._weight
            self._moment = momentum * self._moment + gradient
            update = gradient + max(momentum, 1.0) * self._moment  # Nesterov's, the larger one
        else:
            update = ratio
        self._weight += lr * (update + decay * self._weight)


def _largest_ratio(betas: tuple[float, float], eps: float) -> float:
    """Return how large Adam's ratio of moments can be, bias corrected, for any gradients: by Cauchy's inequality."""
    first, second = betas
    if eps < _LEAST_EPS or not 0 <= first**2 < second < 1:
        return math.inf
    return 1 / math.sqrt((1 - second) * (1 - first**2 / second))
