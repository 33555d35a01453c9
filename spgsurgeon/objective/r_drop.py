"""R-Drop (arXiv 2106.14448): the same batch twice through a model with dropout, and both predictions drawn together.

Shapes: N samples, C classes; logits are [2N, C, ...], the second pass after the first, units after the classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from spgsurgeon.errors import UsageError

_LEAST_COUNT = 1e-9  # far below one unit on one of all ranks


def divergence(
    logits: Tensor, target: Tensor, ignore_index: int = -100, mean_over_ranks: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Return the mean over counted units of (KL(p || q) + KL(q || p)) / 2, float32 []; 0 if there is none.

    `target` is [N, ...] of class indices, which says what is counted; `mean_over_ranks` as in `spg_loss`. Raises
    UsageError for shapes that don't fit.
    """
    units = [len(target), *target.shape[1:]]
    if logits.dim() < 2 or [logits.shape[0] // 2, *logits.shape[2:]] != units or logits.shape[0] % 2:
        raise UsageError(
            f"R-Drop needs logits [2N, C, ...] for a target [N, ...] (got {list(logits.shape)}, {list(target.shape)})",
            code="unfit-target",
        )
    with torch.autocast(logits.device.type, enabled=False):
        one, other = logits.float().log_softmax(1).chunk(2)
        both = kl_div(one, other, reduction="none", log_target=True) + kl_div(
            other, one, reduction="none", log_target=True
        )
        counted = target != ignore_index
        total = both.sum(1).masked_fill(~counted, 0).sum()
        units_counted = counted.sum(dtype=torch.float32)
        if mean_over_ranks is not None:
            units_counted = mean_over_ranks(units_counted)
        return total / units_counted.clamp(min=_LEAST_COUNT) / 2
