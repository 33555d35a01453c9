"""A vision transformer for images of another size than it was built for: the same weights, positions resampled."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.libraries.building import build, load_weights
from spgsurgeon.models.libraries.identity import Identity


def at_image_size(
    module: nn.Module, identity: Identity, size: tuple[int, int]
) -> tuple[nn.Module, Identity, list[str]]:
    """Return the model for images of `size` (height, width) in pixels, and the keys of the tensors that are resampled.

    Only timm's models that are built for one size can be; their own code resamples the positions. Raises
    ArchitectureError for all others, and if that size does not go into whole patches and windows.
    """
    if identity.library != "timm":
        raise ArchitectureError(f"{identity.name} can't be built for another image size here")
    asked = replace(identity, model_args=identity.model_args | {"img_size": list(size)})
    with torch.random.fork_rng(devices=[]):
        other = build(asked)
    _check_patches(other, size)
    before, own = module.state_dict(), other.state_dict()
    resampled = before if _shapes(before) == _shapes(own) else _resampled(module, identity, size)
    if _shapes(resampled) != _shapes(own):
        raise ArchitectureError(f"timm can't resample the weights of {identity.name} for another image size")
    load_weights(other, resampled, identity.name)
    for mine, theirs in zip(other.parameters(), module.parameters(), strict=True):
        mine.requires_grad_(theirs.requires_grad)
    return other, asked, [key for key, value in resampled.items() if value.shape != before[key].shape]


def _check_patches(module: nn.Module, size: tuple[int, int]) -> None:
    """Raise ArchitectureError for a size of which timm would leave the pixels at two edges out without a word."""
    patch = getattr(getattr(module, "patch_embed", None), "patch_size", None)
    if isinstance(patch, tuple) and any(side % edge for side, edge in zip(size, patch, strict=True)):
        raise ArchitectureError(
            f"{' x '.join(map(str, size))} pixels are no whole number of patches of {' x '.join(map(str, patch))}"
        )


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


def _resampled(module: nn.Module, identity: Identity, size: tuple[int, int]) -> dict[str, Tensor]:
    """Return the state dict at another size, as timm's own code resamples it; the module stays as it is."""
    twin = build(identity)
    load_weights(twin, {key: value.clone() for key, value in module.state_dict().items()}, identity.name)
    try:
        with torch.no_grad():
            cast(Any, twin).set_input_size(img_size=size)
    except Exception as error:  # each architecture has code of its own, and some have none
        raise ArchitectureError(f"timm can't resample the weights of {identity.name} for another image size") from error
    return {key: value.detach() for key, value in twin.state_dict().items()}
