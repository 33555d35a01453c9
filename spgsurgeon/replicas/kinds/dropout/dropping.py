"""What the kinds share whose replicas drop: a rate, and a projection of what it leaves."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from spgsurgeon.replicas.kinds.kind import HeadReplicas
from spgsurgeon.sections import BelowOne

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.places import Place


class Dropping(HeadReplicas):
    """Replicas that add up dropout of some form."""

    rate: BelowOne = 0.2
    """Dropout rate of each step; after t steps it has added up to 1 - (1 - rate)^t (eq. 4)."""
    projection: bool = True
    """Whether each replica also has a linear projection of what it leaves, which learns (eq. 2). Without it replicas
    are dropout alone, which is what the authors' released ones amount to: their projections never learn."""

    @abstractmethod
    def dropout(self) -> nn.Module:
        """Return the layer that drops."""

    def replica(self, head: nn.Module, place: Place, step: int) -> nn.Module:
        """See `HeadReplicas`."""
        from spgsurgeon.replicas.kinds.dropout.module import DropoutReplica, zero_projection

        return DropoutReplica(zero_projection(head, place.width) if self.projection else None, self.dropout())

    def step_values(self) -> list[float]:
        """Return the share of the hidden state dropped at steps 0..T: 1 - (1 - rate)^t (eq. 4)."""
        return [1 - (1 - self.rate) ** t for t in range(self.replicas + 1)]

    def parameters_of_one(self, width: int) -> int:
        """Return D^2 + D (eq. 14), or 0 without projections."""
        return width**2 + width if self.projection else 0

    def document(self) -> dict[str, Any]:
        """See `ReplicaKind`; projections are said only if there are none, as folders were written before."""
        return {key: value for key, value in super().document().items() if (key, value) != ("projection", True)}

    def words(self) -> str:
        """See `ReplicaKind`."""
        without = "" if self.projection else ", without projections"
        return f"{self.replicas} {self.kind} replicas, rate {self.rate}{without}"
