"""Stochastic depth of the last residual block (arXiv 1603.09382): more samples skip it with each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.models import BLOCK, InnerSite
from spgsurgeon.replicas.kinds.inner import InnerReplicas
from spgsurgeon.sections import BelowOne

if TYPE_CHECKING:
    from torch import nn


class DropPath(InnerReplicas):
    """Replicas that skip a block."""

    kind: Literal["drop-path"] = "drop-path"
    """`drop-path`: each replica lets a few more samples skip the last residual block."""
    rate: BelowOne = 0.2
    """How likely each step is to let a sample skip the block; after t steps 1 - (1 - rate)^t have."""

    accepts: ClassVar[str | None] = "skip rate"
    layer: ClassVar[str] = BLOCK

    def replica(self, site: InnerSite, step: int) -> nn.Module:
        """See `InnerReplicas`."""
        from spgsurgeon.replicas.kinds.drop_path.module import SkipBlock

        return SkipBlock(self.rate)

    def step_values(self, site: InnerSite) -> list[float]:
        """Return the share of samples that have skipped the block at steps 0..T."""
        return [1 - (1 - self.rate) ** t for t in range(self.replicas + 1)]
