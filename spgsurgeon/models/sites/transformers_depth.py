"""Where replicas of depth attach in a model of transformers: at the output of the last layer of its encoder.

Shapes: D = width of the hidden state.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.heads import ENCODER_LAYER, DepthSite
from spgsurgeon.models.sites.transformers_heads import HEADS, Family
from spgsurgeon.models.sites.transformers_sites import find_transformers_sites


def find_transformers_depth_site(model: nn.Module) -> DepthSite:
    """Return the output of the last layer of `model`, a model of transformers with a head.

    Its layers are known by their class. Raises ArchitectureError with the reason if replicas can't follow the last one.
    """
    find_transformers_sites(model)  # refuses what has no head that can be grafted
    name, config = type(model).__name__, _config(model)
    family = HEADS[name].family
    layers = {path: part for path, part in model.named_modules() if type(part).__name__ in family.layers}
    if not layers:
        raise _unknown(name, family)
    if getattr(config, "layerdrop", 0.0) > 0:
        raise ArchitectureError(
            f"a {name} skips each layer by chance in training (layerdrop {config.layerdrop}), the last one too, and "
            "replicas of depth have to follow it",
            hint='set "layerdrop": 0.0 in its configuration',
            code="layerdrop",
        )
    if getattr(config, "use_weighted_layer_sum", False):
        raise ArchitectureError(
            f"the head of this {name} reads the hidden states of all layers (use_weighted_layer_sum), and replicas of "
            "depth make others of the last one alone"
        )
    path, layer = list(layers.items())[-1]
    width = int(config.hidden_size)
    return DepthSite(
        module=path,
        width=width,
        family=family.prefix,
        block=ENCODER_LAYER,
        blocks=1,
        block_parameters=sum(parameter.numel() for parameter in layer.parameters()) + width,
        depth=len(layers),
        block_depth=1,
        unit="layers",
    )


def _config(model: nn.Module) -> Any:
    return model.config


def _unknown(name: str, family: Family) -> ArchitectureError:
    reason = _REASONS.get(family.model_type)
    known = dict.fromkeys(head.family.prefix for head in HEADS.values() if head.family.layers)
    return ArchitectureError(
        f"replicas of depth are not known for a {name}{': ' + reason if reason else ''}",
        hint=f"of transformers they are for encoders: {', '.join(known)}",
    )


_REASONS = {
    "albert": "it runs one layer again and again, so one with weights of its own would make another architecture of it",
}
