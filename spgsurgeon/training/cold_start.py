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
from torch.nn.modules.batchnorm import _BatchNorm

from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.errors import UsageError, VerificationError

FIRST_MOMENTS = ("exp_avg", "momentum_buffer", "m")
SECOND_MOMENTS = ("exp_avg_sq", "square_avg", "sum", "v")


@contextmanager
def running_statistics_frozen(module: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Normalise by the batch as in training, but leave running statistics (and their counter) as they are."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats] if frozen else []
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


@contextmanager
def learning_rate_zero(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Set every group's learning rate to zero, and put it back."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    try:
        yield
    finally:
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
    """Both moments of all parameters, flattened and joined: float32 [P], None where the optimizer keeps none."""

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
    """Return a copy of the moments. Raises UsageError for an optimizer that keeps none: it needs no cold start."""
    first, second = _gather(optimizer, FIRST_MOMENTS), _gather(optimizer, SECOND_MOMENTS)
    if first is None and second is None:
        raise UsageError(
            f"{type(optimizer).__name__} keeps no moments that a cold start could fill", hint="set cold_start.epochs=0"
        )
    return Moments(first, second)


def drift(before: Moments, after: Moments) -> Drift:
    """Return the cosine between the first moments and the relative change of the second ones."""
    cosine = change = None
    if before.first is not None and after.first is not None:
        cosine = cosine_similarity(before.first, after.first, dim=0).item()
    if before.second is not None and after.second is not None:
        change = ((after.second - before.second).norm() / before.second.norm().clamp(min=1e-30)).item()
    return Drift(cosine, change)


def _gather(optimizer: torch.optim.Optimizer, names: tuple[str, ...]) -> Tensor | None:
    found = [
        entries[name].detach().flatten().float()
        for entries in optimizer.state.values()
        for name in names
        if isinstance(entries.get(name), Tensor)
    ]
    return torch.cat(found) if found else None
