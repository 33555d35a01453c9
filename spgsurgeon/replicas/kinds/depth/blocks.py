"""Residual blocks that start as the identity: what replicas of depth are made of.

Shapes: D = width; maps are [N, D, H, W]. `zero_last` makes a block the identity by the scale of the last normalisation
in each residual branch, or by its last projection where there is no normalisation, so every weight gets a gradient from
the second step on. `zero_all` sets all convolutions to zero, in the paper's words (section 4.3): then none ever gets a
gradient, since each one's is multiplied by the zero of another. It is there for comparison.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from spgsurgeon.errors import ArchitectureError

_IDEMPOTENT = (nn.ReLU, nn.ReLU6)  # f(f(x)) = f(x), bit for bit
_ACTIVATIONS = (*_IDEMPOTENT, nn.SiLU, nn.GELU, nn.Hardswish, nn.LeakyReLU, nn.ELU, nn.Mish, nn.PReLU)

_NONE: Mapping[str, Any] = MappingProxyType({})


class ConvolutionalBlock(nn.Module):
    """`activation(hidden + branch(hidden))`; the branch ends in a normalisation, `last`."""

    last = ("branch.7",)

    def __init__(self, width: int, inner: int, groups: int, template: nn.Module, *, activated: bool) -> None:
        super().__init__()
        norm, activation = _norm_of(template), _activation_of(template)
        self.branch = nn.Sequential(
            nn.Conv2d(width, inner, 1, bias=False),
            _norm_like(norm, inner),
            copy.deepcopy(activation),
            nn.Conv2d(inner, inner, 3, padding=1, groups=groups, bias=False),
            _norm_like(norm, inner),
            copy.deepcopy(activation),
            nn.Conv2d(inner, width, 1, bias=False),
            _norm_like(norm, width),
        )
        self.activation = copy.deepcopy(activation) if activated and isinstance(activation, _IDEMPOTENT) else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the next hidden state [N, D, H, W]."""
        state: Tensor = hidden + self.branch(hidden)
        return state if self.activation is None else self.activation(state)


def bottleneck(width: int, template: nn.Module, *, activated: bool) -> ConvolutionalBlock:
    """Return a block D -> D/4 -> D/4 -> D of a 1x1, a 3x3 and a 1x1 convolution (arXiv 1512.03385).

    Its kinds of normalisation and activation are those of `template`, a block of the base. Where the base's hidden
    state comes out of an activation, `activated`, the block ends in it too, if that gives back what it gave before
    (ReLU); another one, as SiLU, would change the hidden state, and the block ends in the sum.
    """
    inner = max(width // 4, 1)
    return ConvolutionalBlock(width, inner, 1, template, activated=activated)


def inverted_residual(width: int, template: nn.Module, *, activated: bool = False) -> ConvolutionalBlock:
    """Return a block D -> 6D -> 6D -> D whose 3x3 convolution is depthwise (arXiv 1801.04381); see `bottleneck`."""
    return ConvolutionalBlock(width, 6 * width, 6 * width, template, activated=activated)


class GatedLayer(nn.Module):
    """`hidden + gate * (layer(hidden) - hidden)`: one more layer of an encoder at a gate of one, none at zero.

    A gate, since many encoders normalise what leaves a layer: no weight of it makes such a layer the identity. It is a
    vector [D] that starts at zero.
    """

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer = layer
        self.gate = nn.Parameter(torch.zeros(width))

    def forward(self, hidden: Tensor, inputs: Sequence[Any] = (), options: Mapping[str, Any] = _NONE) -> Tensor:
        """Return the next hidden state [N, L, D]; `inputs` and `options` are what else the layer takes, as masks."""
        output = self.layer(hidden, *inputs, **options)
        grown: Tensor = output[0] if isinstance(output, tuple) else output
        added: Tensor = self.gate * (grown - hidden)
        return hidden + added.to(hidden.dtype)


def like(template: nn.Module, scales: Iterable[str] = ()) -> nn.Module:
    """Return a new block of the same kind as `template`, a residual block of the base, initialised anew.

    `scales` are the paths of parameters that scale a branch, where the template has them: they start at one, not at
    the small numbers that keep a deep network stable, since `zero_last` does that. Parameters of layers that can't
    initialise themselves keep the template's values. Batch norms have no running statistics, as replicas never infer.
    """
    block = copy.deepcopy(template).train().requires_grad_(True)
    for part in block.modules():
        if isinstance(part, _BatchNorm):
            part.track_running_stats = False
            part.running_mean = part.running_var = part.num_batches_tracked = None
        reset = getattr(part, "reset_parameters", None) or getattr(part, "_reset_parameters", None)
        if callable(reset):
            reset()
    parameters = dict(block.named_parameters())
    for name in scales:
        if name in parameters:
            nn.init.ones_(parameters[name])
    return block


def zero_last(block: nn.Module, last: Iterable[str]) -> nn.Module:
    """Set the layers at the paths `last`, which end the residual branches, to zero."""
    for name in last:
        _zero(block.get_submodule(name))
    return block


def zero_all(block: nn.Module) -> nn.Module:
    """Set every convolution and projection of `block` to zero."""
    for part in block.modules():
        if isinstance(part, nn.Conv2d | nn.Linear | nn.MultiheadAttention):
            _zero(part)
    return block


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters(recurse=False):
        nn.init.zeros_(parameter)


def _norm_of(template: nn.Module) -> nn.Module:
    norms = [part for part in template.modules() if isinstance(part, _BatchNorm | nn.GroupNorm)]
    if not norms:
        raise ArchitectureError(f"replicas of convolutions need a batch or group norm, a {_kind(template)} has none")
    return norms[0]


def _activation_of(template: nn.Module) -> nn.Module:
    return next((part for part in template.modules() if isinstance(part, _ACTIVATIONS)), nn.ReLU())


def _norm_like(norm: nn.Module, width: int) -> nn.Module:
    """Return a new normalisation for `width` channels; it needs no running statistics, as replicas never infer."""
    if isinstance(norm, nn.GroupNorm):
        groups = norm.num_groups if width % norm.num_groups == 0 else 1
        return nn.GroupNorm(groups, width, eps=norm.eps)
    assert isinstance(norm, _BatchNorm)
    return nn.BatchNorm2d(width, eps=norm.eps, track_running_stats=False)


def _kind(module: nn.Module) -> str:
    return type(module).__name__
