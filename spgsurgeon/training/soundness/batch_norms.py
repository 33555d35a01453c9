"""Batch norms that would see one value a channel, of which there is no variance: found before anything is scored."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.errors import UsageError
from spgsurgeon.models import meta_twin, run_twin

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def check_batch_norms(model: nn.Module, input_size: tuple[int, ...], batch_size: int, only_last: bool = False) -> None:
    """Raise UsageError, naming a layer and the size it sees, for batch norms with one value a channel in training.

    `input_size` is [channels, height, width]; only batches of one, in each process, can have such. `only_last`: only
    the last batch of an epoch has so few images.
    """
    if batch_size > 1:
        return
    found = _of_one_value(model, input_size)
    if not found:
        return
    name, shape = next(iter(found.items()))
    more = f", as do {len(found) - 1} more" if len(found) > 1 else ""
    raise UsageError(
        f"the batch norm {name} sees one value a channel, {shape}, in a batch of one image of "
        f"{' x '.join(map(str, input_size[1:]))} pixels{more}: it has no variance",
        hint="training.drop_last=true leaves that last batch out, or another training.batch_size"
        if only_last
        else "training.batch_size=2 or more, larger images (data.image_size), or training.batch_norm=freeze",
        code="one-value-batch-norm",
        layers=list(found),
    )


def _of_one_value(model: nn.Module, input_size: tuple[int, ...]) -> dict[str, list[int]]:
    """Return what each such layer sees of one image, by its name, in the order of the pass."""
    if not any(isinstance(module, _NORMS) for module in model.modules()):
        return {}  # some models without can't be traced
    twin, found = meta_twin(model), dict[str, list[int]]()
    for name, module in twin.named_modules():
        if isinstance(module, _NORMS):
            module.register_forward_pre_hook(partial(_look, name, found))
    run_twin(twin, torch.empty(1, *input_size, dtype=next(model.parameters()).dtype, device="meta"))
    return found


def _look(name: str, found: dict[str, list[int]], module: nn.Module, args: tuple[Any, ...]) -> None:
    values: Tensor = args[0]
    if values.shape[2:].numel() == 1:
        found[name] = [1, *values.shape[1:]]
