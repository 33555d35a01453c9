"""Losses that bear wrong labels, made of a readout: generalized cross entropy, and the smallest losses of a batch.

Shapes: T replicas; `units` as in `readout`; p is the probability that a step gives to the label of a unit.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.readout import Readout

_ROUNDING = 1e-3
"""Of a unit: 0.7 of 10 units are 7, although 0.7 * 10 may be less in float32."""


def generalized(cross_entropy: Tensor, q: float) -> Tensor:
    """Return (1 - p^q) / q of cross entropies -log p, of any shape (Zhang and Sabuncu, arXiv 1805.07836, eq. 6).

    Its gradient is that of the cross entropy, times p^q: units that the model finds unlikely teach little. With q near
    0 it is the cross entropy, with q = 1 it is 1 - p, half the mean absolute error. Cross entropies must be of labels.
    """
    return -torch.expm1(-q * cross_entropy) / q


def smallest(readout: Readout, share: float) -> Readout:
    """Return the readout of a single step, [1, units], with a weight of 0 for all but the smallest cross entropies.

    The `share` of the units that count is kept, rounded down, and one at least; of equal ones the first. That is what
    co-teaching (arXiv 1804.06872) takes of a batch, with one network that chooses for itself. Nothing waits for the
    device. Raises UsageError for a readout of several steps.
    """
    if len(readout.cross_entropy) > 1:
        raise UsageError(
            f"small_loss chooses by one loss a unit, and there are {len(readout.cross_entropy)} steps",
            hint="leave small_loss out; the mask of an episode chooses units too",
            code="small-loss-needs-control",
        )
    counted = readout.counted
    entropy = readout.cross_entropy[0].detach().masked_fill(~counted, torch.inf)
    order = entropy.flatten().argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    most = (share * counted.sum() + _ROUNDING).floor().clamp(min=1)
    kept = ((rank < most).view(counted.shape) & counted).to(torch.float32)
    return readout._replace(weight=kept if readout.weight is None else kept * readout.weight)
