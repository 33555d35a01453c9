"""Dropping tokens before the last block of a vision transformer: more of them with each step."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.models import TOKENS, InnerSite
from spgsurgeon.replicas.kinds.inner import InnerPlace, InnerReplicas
from spgsurgeon.replicas.kinds.kind import Sites
from spgsurgeon.replicas.places import Place
from spgsurgeon.sections import BelowOne

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.stacking import ReplicaChain


class TokenDrop(InnerReplicas):
    """Replicas that drop tokens; the last block, pooling and head are shared."""

    kind: Literal["token-drop"] = "token-drop"
    """`token-drop`: each replica drops a few more of the tokens that enter a vision transformer's last block."""
    rate: BelowOne = 0.2
    """How likely each step is to drop a token of a patch; after t steps 1 - (1 - rate)^t are gone."""

    accepts: ClassVar[str | None] = "token drop rate"
    layer: ClassVar[str] = TOKENS

    def places(self, sites: Sites) -> list[Place]:
        """See `ReplicaKind`: before the last block, as its attention is what makes tokens matter to each other."""
        site = sites.inner_site(self.layer)
        return [InnerPlace(site.module, "input", site=site)]

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`."""
        from spgsurgeon.replicas.kinds.token_drop.module import TokenChain

        return TokenChain(super().chain(module, place))

    def replica(self, site: InnerSite, step: int) -> nn.Module:
        """See `InnerReplicas`."""
        from spgsurgeon.replicas.kinds.token_drop.module import DropTokens

        return DropTokens(self.step_values(site)[step], site.prefix)

    def step_values(self, site: InnerSite) -> list[float]:
        """Return the share of tokens dropped at steps 0..T."""
        return [1 - (1 - self.rate) ** t for t in range(self.replicas + 1)]
