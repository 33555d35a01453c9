"""The replica of dropout.

Shapes: D = width of the hidden state; [N, ..., D] before a Linear head, [N, D, H, W] where it is a map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import skip_init

from spgsurgeon.errors import UsageError


class DropoutReplica(nn.Module):
    """Replica t: h' = dropout(h), then h' + projection(h') (eq. 1, 2). The projection starts at zero (eq. 3).

    It may be left out.
    """

    def __init__(self, projection: nn.Module | None, dropout: nn.Module) -> None:
        super().__init__()
        self.dropout = dropout
        self.projection = projection

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the next hidden state, of the same shape."""
        dropped: Tensor = self.dropout(hidden)
        return dropped if self.projection is None else dropped + self.projection(dropped)


def zero_projection(head: nn.Module, map_width: int | None) -> nn.Module:
    """Return D -> D with weight and bias zero, without drawing random numbers: a Linear or, for maps, a 1x1 conv.

    It has the device and the dtype of `head`. Raises UsageError for a head of several layers whose width is not given.
    """
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
