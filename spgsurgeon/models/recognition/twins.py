"""Architectures that weights can't tell apart: what differs between them beyond keys and shapes.

Nothing here needs torch but `traits_of`, which builds the catalogue.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.models.preprocessing import Preprocessing

Traits = Mapping[str, Any]
_OF_IMAGES = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")


def traits_of(module: nn.Module, preprocessing: Preprocessing) -> dict[str, Any]:
    """Return how a model prepares images by default, and what its layers do, as plain data."""
    parts = list(module.modules())
    kinds = {type(part).__name__ for part in parts}
    found = {name: getattr(preprocessing, name) for name in _OF_IMAGES}
    given = (getattr(part, "eps", None) for part in parts)
    eps = sorted({value for value in given if isinstance(value, float)})
    # timm's layers with TensorFlow's padding are called so.
    padding = "of TensorFlow" if any(kind.endswith("Same") for kind in kinds) else "symmetric"
    return found | {"padding": padding, "norm_eps": eps, "layers": sorted(kinds)}


def differences(traits: Mapping[str, Traits]) -> dict[str, dict[str, Any]]:
    """Return what differs between architectures by their names: each trait with what it is of each.

    Of their kinds of layers only those that not all of them have are named.
    """
    found: dict[str, dict[str, Any]] = {}
    for trait in dict.fromkeys(name for one in traits.values() for name in one):
        values = {name: one.get(trait) for name, one in traits.items()}
        if any(value != next(iter(values.values())) for value in values.values()):
            found[trait] = _apart(values) if trait == "layers" else values
    return found


def _apart(kinds: Mapping[str, Any]) -> dict[str, list[str]]:
    common = set.intersection(*(set(some) for some in kinds.values()))
    return {name: [kind for kind in some if kind not in common] for name, some in kinds.items()}
