"""Parameters that a step of training may leave out."""

from __future__ import annotations

from torch import nn

from spgsurgeon.models.sites.transformers_heads import head_of_class


def has_resting_parameters(module: nn.Module) -> bool:
    """Return whether parameters of a model may have no part in a step's loss, so that processes must not wait for them.

    Models of waves skip layers by chance (LayerDrop), and have a vector in place of masked frames, of which there may
    be none.
    """
    head = head_of_class(type(module))
    return head is not None and head.family.modality == "waves"
