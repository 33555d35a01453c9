"""The values of a model's weights: what is written and hashed, and what makes them unfit to score or retrain."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spgsurgeon.errors import SurgeonError
from spgsurgeon.models import (
    saved_state,
)

_LISTED = 8


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached: what is written and hashed. See `saved_state`."""
    return saved_state(module)


def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of tensors that hold a NaN or an infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]


def refuse_unsound(state: Mapping[str, Tensor]) -> None:
    """Raise SurgeonError naming the tensors that hold NaN or infinity, or a running variance below zero."""
    faults = dict.fromkeys(non_finite(state), "NaN or infinity")
    variances = (key for key in state if key.rpartition(".")[2] == "running_var" and key not in faults)
    faults |= {key: "a variance below zero" for key in variances if (state[key] < 0).any()}
    if faults:
        named = "; ".join(f"{key} holds {fault}" for key, fault in list(faults.items())[:_LISTED])
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise SurgeonError(
            f"the weights can't be scored or retrained: {named}{more}",
            hint="was the checkpoint written by a run that diverged? take an earlier one",
            code="unsound-weights",
            tensors=list(faults),
        )
