"""One pass of a model on the meta device: nothing is computed, and the model stays as it is."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError, first_line

_NAME_THEM = "name the layers that make the logits, graft(model, site='fc')"


def meta_twin(model: nn.Module) -> nn.Module:
    """Return a copy of `model` in train mode whose parameters, all trainable, and buffers hold no numbers."""
    memo: dict[int, Any] = {
        id(p): nn.Parameter(p.detach().to("meta"), requires_grad=p.is_floating_point()) for p in model.parameters()
    }
    memo |= {id(buffer): buffer.detach().to("meta") for buffer in model.buffers()}
    try:
        return copy.deepcopy(model, memo).train()
    except RuntimeError as error:  # of tensors that are made anew at each pass, as torch.nn.utils.weight_norm's
        raise ArchitectureError(
            f"the sites can't be found: the model can't be copied: {first_line(error)}",
            hint=f"{_NAME_THEM}; of weight_norm, torch.nn.utils.parametrizations has one that can be copied",
            code="not-copied",
        ) from error


def run_twin(twin: nn.Module, example: Tensor) -> Any:
    """Return the output of a meta twin on 2 images of the size and type of `example` [N, channels, H, W].

    Raises ArchitectureError if the model can't take such images.
    """
    images = torch.empty(2, *example.shape[1:], dtype=example.dtype, device="meta")  # batch norms refuse one image
    try:
        with torch.inference_mode(False), torch.enable_grad():
            return twin(images)
    except Exception as error:  # a stranger's model, on a device that it may not have met
        reason = first_line(error)
        hint = f"in Python, give images that it takes, example=..., or {_NAME_THEM}"
        if "meta" in reason:  # a pass that looks at numbers, of which there are none
            hint = f"its forward goes by the values of its inputs, so it can't be traced: in Python, {_NAME_THEM}"
        raise ArchitectureError(
            f"the sites can't be found: on images of {list(example.shape[1:])} the model fails: {reason}",
            hint=hint,
        ) from error


def shape_of(value: object = None) -> tuple[int, ...]:
    """Return the shape of a tensor; () for anything else."""
    return tuple(value.shape) if isinstance(value, Tensor) else ()
