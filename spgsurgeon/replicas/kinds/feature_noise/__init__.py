"""Gaussian noise on what the head reads, more with each step; no weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.replicas.kinds.kind import HeadReplicas
from spgsurgeon.sections import NonNegative

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.places import Place


class FeatureNoise(HeadReplicas):
    """Replicas that add up noise."""

    kind: Literal["feature-noise"] = "feature-noise"
    """`feature-noise`: each replica adds Gaussian noise to what the head reads."""
    scale: NonNegative = 0.2
    """Standard deviation of the noise that each step adds, as a share of the root mean square of a unit's features."""

    accepts: ClassVar[str | None] = "noise"

    def replica(self, head: nn.Module, place: Place, step: int) -> nn.Module:
        """See `HeadReplicas`."""
        from torch import nn

        from spgsurgeon.replicas.kinds.feature_noise.module import RelativeNoise

        return RelativeNoise(self.scale, channels=-1 if isinstance(head, nn.Linear) else 1)

    def step_values(self) -> list[float]:
        """Return the standard deviation of all noise at steps 0..T, as a share of the features' root mean square.

        Each step adds `scale` times that of the step before, whose square has grown by 1 + scale^2.
        """
        return [((1 + self.scale**2) ** t - 1) ** 0.5 for t in range(self.replicas + 1)]
