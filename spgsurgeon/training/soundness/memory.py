"""Whether what training adds to a model fits in memory, as far as it can be told before the first step."""

from __future__ import annotations

from torch import nn

from spgsurgeon.runtime import free_on

_TIMES = 3  # gradients and the usual two moments


def said_of_memory(model: nn.Module) -> list[str]:
    """Return the note, if there is reason for one, on a model whose gradients and moments its device has no room for.

    The model must lie on that device.
    """
    learning = [p for p in model.parameters() if p.requires_grad]
    if not learning:
        return []
    needed, device = _TIMES * sum(p.numel() * p.element_size() for p in learning), learning[0].device
    free = free_on(device)
    if free is None or needed <= free:
        return []
    return [
        f"gradients and two moments of all that learns take {needed / 1e9:.3f} GB, and {free / 1e9:.3f} GB are free "
        f"({device}): replicas without projections (trp.projection=false), or training.freeze, take less"
    ]
