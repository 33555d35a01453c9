"""Dropout of whole channels (arXiv 1411.4280): for heads that read a map, whose neighbours tell each other's values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models import Site
from spgsurgeon.replicas.kinds.dropout.dropping import Dropping
from spgsurgeon.replicas.kinds.kind import Sites

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.places import Place


class ChannelDropout(Dropping):
    """Replicas that add up dropout of channels."""

    kind: Literal["channel-dropout"] = "channel-dropout"
    """`channel-dropout`: each replica drops a few more channels, whole, of the map that the head reads."""

    accepts: ClassVar[str | None] = "channel dropout rate"

    def dropout(self) -> nn.Module:
        """See `Dropping`: a channel of a sample is dropped or kept in all places."""
        from torch import nn

        return nn.Dropout2d(self.rate)

    def heads(self, sites: Sites) -> Sequence[Site]:
        """See `ReplicaKind`. Raises ArchitectureError for a head that reads no map."""
        if flat := [site.module for site in sites.sites if site.type == "Linear"]:
            raise _no_map(flat[0])
        return sites.sites

    def replica(self, head: nn.Module, place: Place, step: int) -> nn.Module:
        """See `HeadReplicas`."""
        from torch import nn

        if isinstance(head, nn.Linear):
            raise _no_map(place.name)
        return super().replica(head, place, step)


def _no_map(head: str) -> ArchitectureError:
    return ArchitectureError(
        f"whole channels are dropped from a map, and the head {head!r} reads a number a channel",
        hint="dropout of single numbers is the kind for it",
    )
