"""Groups of weights for an optimizer: what decays, and how fast each group learns. The rules are timm's.

A group's `lr_scale` is what timm's schedules multiply its learning rate by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from spgsurgeon.errors import UsageError
from spgsurgeon.recipe import OptimizerSection
from spgsurgeon.replicas import GraftedModel

Group = dict[str, Any]
SCALE = "lr_scale"


def parameter_groups(
    grafted: GraftedModel, settings: OptimizerSection, head: Collection[str] | None = None
) -> list[Group]:
    """Return the groups of all parameters that learn, those of the replicas included.

    `head` names the head's parameters in the base; None: all of the modules whose inputs replicas replace. With
    `layer_decay`, a layer learns by that factor more slowly than the one after it, the last ones and the replicas at
    full speed; with `head_lr`, the head learns at a rate of its own. Raises UsageError for a model whose layers or head
    are not known.
    """
    decay = settings.layer_decay
    groups = _alike(grafted, settings) if decay is None else _by_layer(grafted, settings, decay)
    return groups if settings.head_lr is None else _with_head(groups, grafted, settings, head)


def head_parameters(grafted: GraftedModel, head: Collection[str] | None = None) -> list[nn.Parameter]:
    """Return the parameters of the base's head; see `parameter_groups`."""
    if head is None:
        modules = [place.module for place in grafted.places if place.side == "input"]
        found = [p for path in modules for p in grafted.base.get_submodule(path).parameters()]
    else:
        found = [p for name, p in grafted.base.named_parameters(remove_duplicate=False) if name in head]
    return list(dict.fromkeys(found))


def _alike(grafted: GraftedModel, settings: OptimizerSection) -> list[Group]:
    if settings.decay_bias_and_norm:
        return [{"params": [p for p in grafted.parameters() if p.requires_grad]}]
    spared = [f"base.{key}" for key in _spared(grafted.base)]
    groups: list[Group] = param_groups_weight_decay(grafted, settings.weight_decay, no_weight_decay_list=spared)
    return groups


def _spared(base: nn.Module) -> Iterable[str]:
    """Return what timm's models say must not decay beyond biases and norms, position embeddings for one."""
    named: Iterable[str] = getattr(base, "no_weight_decay", set)()
    return named


def _by_layer(grafted: GraftedModel, settings: OptimizerSection, decay: float) -> list[Group]:
    if not hasattr(grafted.base, "group_matcher"):
        raise UsageError(
            f"training.optimizer.layer_decay is for timm's models, which say what their layers are; "
            f"{type(grafted.base).__name__} does not",
            hint="leave it out, or set training.optimizer.head_lr",
            code="unknown-layers",
        )
    layers = param_groups_layer_decay(
        grafted.base,
        settings.weight_decay,
        no_weight_decay_list=() if settings.decay_bias_and_norm else list(_spared(grafted.base)),
        weight_decay_exclude_1d=not settings.decay_bias_and_norm,
        layer_decay=decay,
    )
    replicas = param_groups_weight_decay(
        grafted.replicas, settings.weight_decay, weight_decay_exclude_1d=not settings.decay_bias_and_norm
    )
    # The fastest first: its learning rate is the one that is shown.
    return sorted([*replicas, *layers], key=lambda group: -group.get(SCALE, 1.0))


def _with_head(
    groups: list[Group], grafted: GraftedModel, settings: OptimizerSection, head: Collection[str] | None
) -> list[Group]:
    """Return the groups with the head's parameters in some of their own, at the end."""
    own: set[Tensor] = set(head_parameters(grafted, head))
    if not own:
        raise UsageError(
            "training.optimizer.head_lr: the model's head is not known", hint="leave it out", code="unknown-head"
        )
    assert settings.head_lr is not None
    bodies = [group | {"params": [p for p in group["params"] if p not in own]} for group in groups]
    heads = [
        group | {"params": [p for p in group["params"] if p in own], SCALE: settings.head_lr / settings.lr}
        for group in groups
    ]
    return [group for group in (*bodies, *heads) if group["params"]]
