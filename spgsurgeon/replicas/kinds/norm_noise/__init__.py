"""Noise on the statistics of the last batch norm, as those of a smaller batch have it: more with each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.models import NORM, InnerSite
from spgsurgeon.replicas.kinds.inner import InnerReplicas
from spgsurgeon.replicas.places import Place
from spgsurgeon.sections import NonNegative

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.stacking import ReplicaChain


class NormNoise(InnerReplicas):
    """Replicas that normalise by noisy statistics."""

    kind: Literal["norm-noise"] = "norm-noise"
    """`norm-noise`: each replica adds noise to the statistics that the last batch norm normalises by."""
    noise: NonNegative = 0.1
    """Standard deviation of the noise that each step adds, as a share of a channel's own: to its mean, and to the
    logarithm of its standard deviation. Nothing happens while batch norms are frozen."""

    accepts: ClassVar[str | None] = "noise of statistics"
    layer: ClassVar[str] = NORM
    reads_batches: ClassVar[bool] = True

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`."""
        from spgsurgeon.replicas.kinds.norm_noise.module import NoiseChain

        return NoiseChain(super().chain(module, place))

    def replica(self, site: InnerSite, step: int) -> nn.Module:
        """See `InnerReplicas`."""
        from spgsurgeon.replicas.kinds.norm_noise.module import NoisyStatistics

        return NoisyStatistics(self.noise, step)

    def step_values(self, site: InnerSite) -> list[float]:
        """Return the standard deviation of all noise at steps 0..T, as a share of a channel's own."""
        return [self.noise * t**0.5 for t in range(self.replicas + 1)]
