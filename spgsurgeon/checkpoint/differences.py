"""How far two tensors are apart. A block of elements at a time, in float64, whatever dtypes they have."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_BLOCK = 2**20  # elements; three blocks in float64 are in memory at a time


@dataclass(frozen=True, slots=True)
class Distance:
    """The squared norms ||b - a||^2 and ||a||^2 of tensors of equal shape, and whether they are the same to the bit."""

    same_bits: bool
    squared_change: float
    squared_norm: float

    @property
    def undefined(self) -> Literal["zero", "non_finite"] | None:
        """Why there is no relative change: all of a is zero and b is not, or NaN or infinity came or went."""
        if self.squared_change == 0:
            return None
        if not math.isfinite(self.squared_change) or not math.isfinite(self.squared_norm):
            return "non_finite"
        return "zero" if self.squared_norm == 0 else None

    @property
    def relative_change(self) -> float | None:
        """||b - a|| / ||a||; 0 if all values are equal, NaN at the same place too; None if it is undefined."""
        if self.undefined is not None:
            return None
        return math.sqrt(self.squared_change / self.squared_norm) if self.squared_change else 0.0


def distance(a: Tensor, b: Tensor) -> Distance:
    """Return how far `b` is from `a`. Complex numbers count by their parts, booleans as 0 and 1."""
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    same_bits, squared_change, squared_norm = True, 0.0, 0.0
    for x, y in zip(_blocks(a), _blocks(b), strict=True):
        equal = x.dtype == y.dtype and torch.equal(x.view(torch.uint8), y.view(torch.uint8))
        start = _parts(x.to(wide))
        squared_norm += torch.dot(start, start).item()
        if not equal:
            same_bits = False
            change = _change(start, _parts(y.to(wide)))
            squared_change += torch.dot(change, change).item()
    return Distance(same_bits, squared_change, squared_norm)


def together(distances: Iterable[Distance]) -> Distance:
    """Return the distance of several tensors, taken as one."""
    parts = list(distances)
    return Distance(
        all(part.same_bits for part in parts),
        sum(part.squared_change for part in parts),
        sum(part.squared_norm for part in parts),
    )


@dataclass(frozen=True, slots=True)
class Drift:
    """How far the running statistics of a batch norm moved, over its channels; None if no channel can be judged.

    `mean_shift` is the mean of |mean_b - mean_a| / sqrt(var_a), `variance_ratio` the geometric mean of var_b / var_a.
    `left_out` counts channels whose variance is zero, or with a NaN or an infinity.
    """

    mean_shift: float | None
    variance_ratio: float | None
    left_out: int


def drift(mean_a: Tensor, variance_a: Tensor, mean_b: Tensor, variance_b: Tensor) -> Drift:
    """Return the drift between running means and variances, each [channels]."""
    statistics = torch.stack([tensor.double() for tensor in (mean_a, variance_a, mean_b, variance_b)])
    usable = statistics.isfinite().all(0) & (statistics[1] > 0) & (statistics[3] > 0)
    left_out = int((~usable).sum())
    if left_out == usable.numel():
        return Drift(None, None, left_out)
    mean_a, variance_a, mean_b, variance_b = statistics[:, usable]
    shift = ((mean_b - mean_a).abs() / variance_a.sqrt()).mean()
    ratio = (variance_b.log() - variance_a.log()).mean().exp()
    return Drift(shift.item(), ratio.item(), left_out)


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    yield from tensor.detach().reshape(-1).split(_BLOCK)


def _parts(values: Tensor) -> Tensor:
    return torch.view_as_real(values).reshape(-1) if values.is_complex() else values


def _change(a: Tensor, b: Tensor) -> Tensor:
    """Return b - a, zero if both are the same infinity or both NaN."""
    same = (a == b) | (a.isnan() & b.isnan())
    return (b - a).masked_fill_(same, 0.0)
