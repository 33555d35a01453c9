"""Train and eval mode of a model, put back to what they were."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.models.inputs import call


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Let each submodule's mode be what it was, after the block."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@torch.no_grad()
def run_in_eval(model: nn.Module, example: Tensor | Mapping[str, Tensor]) -> Any:
    """Return `model(example)` in eval mode, or what it gives on inputs by name; each submodule's mode is restored."""
    with modes_kept(model):
        model.eval()
        return model(example) if isinstance(example, Tensor) else call(model, example)
