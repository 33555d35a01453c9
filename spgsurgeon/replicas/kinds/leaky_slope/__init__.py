"""The negative slope of the last activation (Leaky ReLU): larger with each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.models import ACTIVATION, InnerSite
from spgsurgeon.replicas.kinds.inner import InnerReplicas
from spgsurgeon.sections import NonNegative

if TYPE_CHECKING:
    from torch import nn


class LeakySlope(InnerReplicas):
    """Replicas that let the last activation leak."""

    kind: Literal["leaky-slope"] = "leaky-slope"
    """`leaky-slope`: each replica makes the last activation, a ReLU or Leaky ReLU, leak a little more."""
    slope: NonNegative = 0.1
    """How much each step adds to the activation's own negative slope, which is 0 for a ReLU."""

    accepts: ClassVar[str | None] = "negative slope"
    layer: ClassVar[str] = ACTIVATION

    def replica(self, site: InnerSite, step: int) -> nn.Module:
        """See `InnerReplicas`."""
        from spgsurgeon.replicas.kinds.leaky_slope.module import Leak

        return Leak(self.slope)

    def step_values(self, site: InnerSite) -> list[float]:
        """Return the slope at steps 0..T: the activation's own, and what is added to it."""
        return [site.value + self.slope * t for t in range(self.replicas + 1)]
