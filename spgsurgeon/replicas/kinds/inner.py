"""What the kinds share that run a layer of the body again, each step its own way, without weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from spgsurgeon.errors import UsageError
from spgsurgeon.models import InnerSite
from spgsurgeon.replicas.kinds.kind import Replicas, Sites
from spgsurgeon.replicas.places import Place

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.stacking import ReplicaChain


@dataclass(frozen=True)
class InnerPlace(Place):
    """A layer of a base's body, and what is known of it."""

    site: InnerSite | None = None


class InnerReplicas(Replicas):
    """Replicas of a layer in the body. A kind says which, what one replica is, and what each step's number means."""

    layer: ClassVar[str]
    """What `Sites.inner_site` is asked for."""

    @abstractmethod
    def replica(self, site: InnerSite, step: int) -> nn.Module:
        """Return replica `step` (1..T): it makes `h_step` of `h_(step-1)`, what entered the layer, and the layer."""

    @abstractmethod
    def step_values(self, site: InnerSite) -> list[float]:
        """Return what an episode that ends at each of the T+1 steps has accepted."""

    def places(self, sites: Sites) -> list[Place]:
        """See `ReplicaKind`."""
        site = sites.inner_site(self.layer)
        place = InnerPlace(
            site.module,
            "output",
            normalisations=site.normalisations,
            again=True,
            call=site.call,
            calls=site.calls,
            site=site,
        )
        return [place]

    def places_at(self, given: str | Place | Sequence[str | Place]) -> list[Place]:
        """See `ReplicaKind`."""
        raise UsageError(f"{self.kind} replicas attach to the last {self.layer}, which is found", hint="leave site out")

    def site_document(self, sites: Sites) -> dict[str, Any]:
        """See `ReplicaKind`."""
        (place,) = self.places(sites)
        return {"module": place.module, "width": sites.inner_site(self.layer).width, "side": place.side}

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`. The place must be one of `places`."""
        from spgsurgeon.replicas.stacking import ReplicaChain

        assert isinstance(place, InnerPlace)
        assert place.site is not None
        site = place.site
        return ReplicaChain(self.replica(site, step) for step in range(1, self.replicas + 1))

    def step_labels(self, sites: Sites) -> list[str]:
        """See `ReplicaKind`."""
        return [f"{value:.4g}" for value in self.step_values(sites.inner_site(self.layer))]
