"""Cold start (arXiv 2506.15051, section 4.1): fill the optimizer's moments at learning rate zero, then train.

A pretrained network meets an optimizer whose moments are zero; its first steps would be of the wrong size.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from spgsurgeon.checkpoint import content_hash
from spgsurgeon.errors import UsageError, VerificationError

# What the optimizers of torch and timm call them.
FIRST_MOMENTS = ("exp_avg", "momentum_buffer", "momentum", "s")
SECOND_MOMENTS = ("exp_avg_sq", "square_avg", "sum", "exp_avg_var", "exp_inf", "grad_sum_sq")


@contextmanager
def learning_rate_zero(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Set every group's learning rate to zero, and put it back.

    The first step raises UsageError for an optimizer that keeps no moments: it needs no cold start.
    """
    rates = [group["lr"] for group in optimizer.param_groups]
    minus_zeros = _minus_zeros(optimizer)

    def after_step(*_: object) -> None:
        _require_moments(optimizer)
        for parameter, places in minus_zeros:  # minus zero and a step of zero length make plus zero
            parameter.masked_fill_(places & (parameter == 0), -0.0)

    hook = optimizer.register_step_post_hook(after_step)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    try:
        yield
    finally:
        hook.remove()
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate


def parameter_hash(module: nn.Module) -> str:
    """Return the content hash of the parameters, without buffers."""
    return content_hash({name: parameter.detach() for name, parameter in module.named_parameters()})


def check_unchanged(module: nn.Module, before: str) -> None:
    """Raise VerificationError if a cold start moved a parameter (law 6), as optimizers that ignore `lr` would."""
    if parameter_hash(module) != before:
        raise VerificationError(
            "the optimizer moved weights at learning rate zero (law 6)",
            hint="use another optimizer, or cold_start.epochs=0",
        )


@dataclass(frozen=True)
class Moments:
    """Both moments of all parameters, flattened and joined: float32 [P], None if the optimizer keeps none."""

    first: Tensor | None
    second: Tensor | None


@dataclass(frozen=True)
class Drift:
    """How much the moments changed from one epoch to the next."""

    first_cosine: float | None
    second_change: float | None

    def settled(self, tolerance: float) -> bool:
        """Whether the cosine of the first is within `tolerance` of 1 and the second changed by no more than it."""
        first = self.first_cosine is None or self.first_cosine >= 1 - tolerance
        return first and (self.second_change is None or self.second_change <= tolerance)


def moments_of(optimizer: torch.optim.Optimizer) -> Moments:
    """Return a copy of the moments."""
    return Moments(_gather(optimizer, FIRST_MOMENTS), _gather(optimizer, SECOND_MOMENTS))


def drift(before: Moments, after: Moments) -> Drift:
    """Return the cosine between the first moments and the relative change of the second ones.

    First moments that are all zero have no direction and count as none: TensorFlow's RMSprop multiplies them by the
    learning rate, so that a cold start fills the second ones alone.
    """
    cosine = change = None
    if before.first is not None and after.first is not None and before.first.any() and after.first.any():
        cosine = cosine_similarity(before.first, after.first, dim=0).item()
    if before.second is not None and after.second is not None:
        change = ((after.second - before.second).norm() / before.second.norm().clamp(min=1e-30)).item()
    return Drift(cosine, change)


def _gather(optimizer: torch.optim.Optimizer, names: tuple[str, ...]) -> Tensor | None:
    # By parameter: the state's own order may be another one in a resumed run.
    entries = [optimizer.state.get(parameter, {}) for parameter in _parameters(optimizer)]
    moments = [entry[name] for entry in entries for name in names if isinstance(entry.get(name), Tensor)]
    return torch.cat([moment.detach().flatten().float() for moment in moments]) if moments else None


def _require_moments(optimizer: torch.optim.Optimizer) -> None:
    known = set(FIRST_MOMENTS + SECOND_MOMENTS)
    if not any(known & entries.keys() for entries in optimizer.state.values()):
        raise UsageError(
            f"{type(optimizer).__name__} keeps no moments that a cold start could fill", hint="set cold_start.epochs=0"
        )


def _minus_zeros(optimizer: torch.optim.Optimizer) -> list[tuple[Tensor, Tensor]]:
    """Return the parameters that hold minus zeros, and where."""
    found = ((p.detach(), (p == 0) & p.signbit()) for p in _parameters(optimizer))
    return [(parameter, places) for parameter, places in found if places.any()]


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
