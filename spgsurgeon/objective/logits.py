"""The logits among what a model gives: itself a tensor, or an object or a mapping that calls them so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from spgsurgeon.errors import UsageError

_NAME = "logits"


def named_logits(output: Any) -> Tensor | None:
    """Return what an object or a mapping calls `logits`; None if it calls nothing so, and of tuples.

    Those of torchvision's models with auxiliary heads have names, and all of their entries are outputs.
    """
    if isinstance(output, (tuple, list)):
        return None
    found = output.get(_NAME) if isinstance(output, Mapping) else getattr(output, _NAME, None)
    return found if isinstance(found, Tensor) else None


def logits_in(output: Any) -> Tensor:
    """Return the logits of an output. Raises UsageError for several of them, and for what has none."""
    if isinstance(output, Tensor):
        return output
    if (found := named_logits(output)) is not None:
        return found
    several = isinstance(output, (tuple, list, Mapping))
    raise UsageError(
        f"the loss goes by one tensor of logits (got a {type(output).__name__})",
        hint="give each output to spg_loss by itself, and add the losses" if several else "give it the logits",
        code="not-logits",
    )
