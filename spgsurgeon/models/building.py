"""From an identity and a checkpoint's tensors to a module that holds exactly these tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.identity import Identity
from spgsurgeon.models.libraries import library
from spgsurgeon.models.sites import Site, find_site

_SHOWN = 5


def build(identity: Identity) -> nn.Module:
    """Return the module of `identity` with random weights, in eval mode."""
    return library(identity.library).build(identity).eval()


def build_for_loading(identity: Identity) -> nn.Module:
    """Return the module of `identity` with poor random weights, which are about to be replaced.

    Much quicker than `build` for a large model. Buffers that are no part of the state dict are computed as usual, which
    building on the meta device would not do. The caller's random numbers stay as they are.
    """
    with torch.random.fork_rng(devices=[]), _RepeatedRandomNumbers():
        return build(identity)


class _RepeatedRandomNumbers(TorchFunctionMode):
    """Fills a large tensor with one drawn block over and over.

    Not with nothing at all: initialisers that reject what is out of bounds, and draw again, would never end.
    """

    _FILLS = frozenset({torch.Tensor.uniform_, torch.Tensor.normal_})
    _BLOCK = 2**14

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func not in self._FILLS or args[0].numel() <= self._BLOCK:
            return func(*args, **(kwargs or {}))
        tensor, *settings = args
        block = func(tensor.new_empty(self._BLOCK), *settings, **(kwargs or {}))
        repeats = -(-tensor.numel() // self._BLOCK)
        return tensor.copy_(block.repeat(repeats)[: tensor.numel()].view(tensor.shape))


def site_of(identity: Identity, module: nn.Module) -> Site:
    """Return where dropout replicas attach (see `find_site`), watched at the model's own input size if need be."""
    size = library(identity.library).preprocessing(identity, module).input_size
    parameter = next(module.parameters())
    return find_site(module, torch.zeros(1, *size, dtype=parameter.dtype, device=parameter.device))


def fit_identity(identity: Identity, tensors: Mapping[str, Tensor]) -> Identity:
    """Return `identity` with the input channels and the number of classes that the checkpoint's shapes call for."""
    args = library(identity.library).args_from_tensors(identity, tensors)
    identity = replace(identity, model_args=identity.model_args | args)
    head = tensors.get(f"{site_of(identity, build_for_loading(identity)).module}.weight")
    return identity if head is None else replace(identity, num_classes=int(head.shape[0]))


def load_weights(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Put `tensors` in place of the module's own, keeping their dtypes and without copying them.

    Raises ArchitectureError naming the keys, where keys or shapes are not those of the architecture `name`.
    """
    own = module.state_dict()
    faults = [f"missing {key}" for key in own if key not in tensors]
    faults += [f"unexpected {key}" for key in tensors if key not in own]
    faults += [
        f"{key} is {list(tensors[key].shape)}, expected {list(value.shape)}"
        for key, value in own.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if faults:
        more = f" and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise ArchitectureError(
            f"the checkpoint does not fit {name}: {'; '.join(faults[:_SHOWN])}{more}",
            hint="is the architecture right? --arch says which",
            faults=faults,
        )
    for key in own:
        own[key] = tensors[key]
    module.load_state_dict(own, assign=True)  # with the module's own versions: torchvision's MNASNet insists on one


def with_classes(module: nn.Module, identity: Identity, num_classes: int) -> tuple[nn.Module, Identity]:
    """Return the model for `num_classes`: every weight kept but the head's, which is new and untrained."""
    cfg = {k: v for k, v in (identity.pretrained_cfg or {}).items() if k not in ("label_names", "label_descriptions")}
    identity = replace(identity, num_classes=num_classes, pretrained_cfg=cfg or None)
    other = build(identity)
    head = site_of(identity, other).module + "."
    dtype = next(module.parameters()).dtype
    fresh = {key: value.to(dtype) for key, value in other.state_dict().items() if key.startswith(head)}
    kept = {key: value for key, value in module.state_dict().items() if not key.startswith(head)}
    load_weights(other, kept | fresh, identity.name)
    return other, identity
