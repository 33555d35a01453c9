"""The momentum of the last batch norm: with each step less of the batch's own statistics, more of the running ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.models import NORM, InnerSite
from spgsurgeon.replicas.kinds.inner import InnerReplicas
from spgsurgeon.sections import Probability

if TYPE_CHECKING:
    from torch import nn


class NormMomentum(InnerReplicas):
    """Replicas that normalise by mixed statistics."""

    kind: Literal["norm-momentum"] = "norm-momentum"
    """`norm-momentum`: each replica normalises the last batch norm less by the batch, more by running statistics."""
    momentum: Probability = 0.5
    """Share of the batch's statistics that each step keeps; after t steps momentum^t is theirs, the rest is the running
    statistics'. Nothing happens while batch norms are frozen."""

    accepts: ClassVar[str | None] = "momentum"
    layer: ClassVar[str] = NORM
    reads_batches: ClassVar[bool] = True

    def replica(self, site: InnerSite, step: int) -> nn.Module:
        """See `InnerReplicas`."""
        from spgsurgeon.replicas.kinds.norm_momentum.module import MixedStatistics

        return MixedStatistics(self.momentum**step)

    def step_values(self, site: InnerSite) -> list[float]:
        """Return the momentum at steps 0..T; training normalises by the batch alone, and that is a momentum of 1."""
        return [self.momentum**t for t in range(self.replicas + 1)]
