"""Dropout-TRP (arXiv 2506.15051, eq. 1-4): each replica drops a little more of the hidden state.

Shapes: D = width of the hidden state; [N, ..., D] before a Linear head, [N, D, H, W] where it is a map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import skip_init

from spgsurgeon.errors import UsageError
from spgsurgeon.replicas.places import Place
from spgsurgeon.replicas.stacking import FixedDropout, ReplicaChain


class DropoutReplica(nn.Module):
    """Replica t: h' = dropout(h, rate), then h' + projection(h') (eq. 1, 2). The projection starts at zero (eq. 3)."""

    def __init__(self, projection: nn.Module, rate: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(rate)
        self.projection = projection

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the next hidden state, of the same shape."""
        dropped: Tensor = self.dropout(hidden)
        state: Tensor = dropped + self.projection(dropped)
        return state


def dropout_replicas(head: nn.Module, place: Place, *, replicas: int, rate: float) -> ReplicaChain:
    """Return `replicas` modules that fit the input of `head`, on its device and of its dtype.

    `rate` is per step; see `cumulative_rates`. Raises UsageError for a rate outside [0, 1) or no replica.
    """
    _check_rate(rate)
    check_replicas(replicas)
    return ReplicaChain(DropoutReplica(_zero_projection(head, place.width), rate) for _ in range(replicas))


def fixed_dropout(head: nn.Module, place: Place, *, rate: float) -> ReplicaChain:
    """Return a chain without replicas that drops what the head reads in train mode, at a `rate` in [0, 1)."""
    _check_rate(rate)
    return FixedDropout(rate)


def _check_rate(rate: float) -> None:
    if not 0 <= rate < 1:
        raise UsageError(f"rate {rate} is outside [0, 1)", hint="0.1 to 0.2 per replica is the paper's range")


def check_replicas(replicas: int) -> None:
    """Raise UsageError where there is not one replica."""
    if replicas < 1:
        raise UsageError(f"{replicas} replicas: at least one is needed", hint="the paper uses 3")


def cumulative_rates(rate: float, replicas: int) -> list[float]:
    """Return the share of the hidden state dropped at steps 0..T: 1 - (1 - rate)^t (eq. 4)."""
    return [1 - (1 - rate) ** t for t in range(replicas + 1)]


def _zero_projection(head: nn.Module, map_width: int | None) -> nn.Module:
    """Return D -> D with weight and bias zero, without drawing random numbers: a Linear or, for maps, a 1x1 conv."""
    parameter = next(head.parameters())
    where = {"device": parameter.device, "dtype": parameter.dtype}
    if isinstance(head, nn.Linear):
        projection: nn.Module = skip_init(nn.Linear, head.in_features, head.in_features, **where)
    elif map_width is not None or (isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.groups == 1):
        width = map_width or head.in_channels
        projection = skip_init(nn.Conv2d, width, width, kernel_size=1, **where)
    else:
        raise UsageError(
            f"dropout replicas attach before a Linear or a 1x1 convolution, not before {head}",
            hint="before a head of several layers that reads a map: spgsurgeon.Place(module, width=D)",
        )
    for new in projection.parameters():
        nn.init.zeros_(new)
    return projection
