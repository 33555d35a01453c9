"""Train and eval mode of a model, put back to what they were."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


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
def run_in_eval(model: nn.Module, example: Tensor) -> Any:
    """Return `model(example)` in eval mode; every submodule's own mode is restored."""
    with modes_kept(model):
        return model.eval()(example)
