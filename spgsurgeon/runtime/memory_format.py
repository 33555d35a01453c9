"""How images, and the weights that meet them, lie in memory. No number changes by it but in the order of sums."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spgsurgeon.errors import UsageError

_BLOCK = 16  # channels that oneDNN's convolutions take at once, at most


def choose_memory_format(memory_format: str, device: torch.device, model: nn.Module) -> torch.memory_format:
    """Return how images lie in memory for a model.

    `auto` is channels-last, which convolutions are fastest with, but contiguous on MPS, and on CPUs for models with a
    strided 1x1 convolution of few channels: channels-last, its gradient is written beyond its memory there (oneDNN
    issue 6035). Raises UsageError if channels-last is asked for all the same.
    """
    overflowing = next((path for path, part in model.named_modules() if _overflows(part)), None)
    if device.type != "cpu" or overflowing is None:
        last = memory_format == "channels-last" or (memory_format == "auto" and device.type != "mps")
        return torch.channels_last if last else torch.contiguous_format
    if memory_format == "channels-last":
        raise UsageError(
            f"on CPUs, channels-last images corrupt memory in {overflowing}, a strided 1x1 convolution of fewer than "
            f"{_BLOCK} channels (oneDNN issue 6035)",
            hint="training.memory_format=auto",
        )
    return torch.contiguous_format


def _overflows(part: nn.Module) -> bool:
    """Return whether it is a convolution whose gradient oneDNN can't take channels-last."""
    if not isinstance(part, nn.Conv2d) or part.groups > 1 or part.in_channels >= _BLOCK:
        return False
    return part.kernel_size == (1, 1) and part.stride != (1, 1)


def laid_out(inputs: Mapping[str, Tensor], memory_format: torch.memory_format) -> dict[str, Tensor]:
    """Return a model's inputs, of which images [B, C, H, W] lie in this format."""
    return {
        name: tensor.contiguous(memory_format=memory_format) if tensor.dim() == 4 else tensor
        for name, tensor in inputs.items()
    }


def lay_out_convolutions(module: nn.Module, memory_format: torch.memory_format) -> None:
    """Lay out the weights of 2D convolutions as the images are, so that no step needs to do it.

    They stay the same parameters. Other weights are left alone: of those with four dimensions some are only viewed.
    Strides that could be of both formats, as of 1x1 kernels, become those of this one: gradients have them, and
    DistributedDataParallel warns of parameters with others.
    """
    for part in module.modules():
        weight = part._parameters.get("weight")
        if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(weight, nn.Parameter):
            pattern = torch.empty_like(weight, memory_format=memory_format, device="meta")
            weight.data = laid_out_like(weight.data, pattern)


def laid_out_like(tensor: Tensor, pattern: Tensor) -> Tensor:
    """Return a tensor of the shape of `pattern` with its strides too; others stay as they are."""
    if tensor.shape != pattern.shape or tensor.stride() == pattern.stride():
        return tensor
    return torch.empty_like(pattern, dtype=tensor.dtype, device=tensor.device).copy_(tensor)
