"""Where dropout replicas attach in a model of transformers in memory: what the table says, and the layer it names."""

from __future__ import annotations

from typing import Any

from torch import nn

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.heads import Site
from spgsurgeon.models.sites.transformers_heads import HEADS, LABELLED, head_of_class


def is_of_transformers(model: nn.Module) -> bool:
    """Return whether `model` is of one of transformers' own classes."""
    return type(model).__module__.startswith("transformers.models.")


def find_transformers_sites(model: nn.Module) -> tuple[Site, ...]:
    """Return what enters the head of `model`, a model of transformers.

    Raises ArchitectureError for a class that is not in the table, and for heads without one right class.
    """
    name, head = type(model).__name__, head_of_class(type(model))
    if head is None:
        raise ArchitectureError(
            f"where replicas attach in a {name} of transformers is not known",
            hint=f"known are {', '.join(HEADS)}; of others, name the layer that makes the logits: site=PATH",
        )
    config: Any = model.config
    if head.task in LABELLED and (config.num_labels == 1 or config.problem_type not in (None, _ONE_LABEL)):
        problem = config.problem_type or "regression"
        raise ArchitectureError(f"this {name} is for {problem}, and an episode needs one right class", code=problem)
    entered, made = model.get_submodule(head.module), model.get_submodule(head.logits)
    assert isinstance(entered, nn.Linear)
    assert isinstance(made, nn.Linear)
    return (Site(head.module, "Linear", entered.in_features, made.out_features),)


_ONE_LABEL = "single_label_classification"
