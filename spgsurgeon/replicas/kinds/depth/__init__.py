"""Depth-TRP (arXiv 2506.15051, section 4.3): each replica is the network grown by a few residual blocks.

Hidden states are what leaves the last stage; pooling and classifier are the shared head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from spgsurgeon.errors import ArchitectureError, UsageError, did_you_mean
from spgsurgeon.models import ENCODER_LAYER, DepthSite
from spgsurgeon.replicas.kinds.kind import Replicas, Sites
from spgsurgeon.replicas.places import Place
from spgsurgeon.sections import Steps

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.stacking import ReplicaChain

CONVOLUTIONAL = ("bottleneck", "inverted-residual")
"""Blocks that fit every family of convolutions; the others are new blocks of the base's own kind."""
_SHOWN = ("module", "width", "side", "family", "block", "blocks", "depth", "unit")


@dataclass(frozen=True)
class LastStage(Place):
    """The output of a base's last stage, and what is known of its family."""

    site: DepthSite | None = None


def _last_stage(sites: Sites) -> DepthSite:
    """Return the last stage. Raises ArchitectureError, with another way, for families whose blocks are not known."""
    try:
        return sites.depth_site
    except ArchitectureError as error:
        hints = filter(None, (error.hint, "dropout replicas are for every classifier, and for segmentation models"))
        raise ArchitectureError(error.message, hint="; ".join(hints)) from error


class Depth(Replicas):
    """Replicas that add up blocks."""

    kind: Literal["depth"] = "depth"
    """`depth`: each replica is the network grown by a few residual blocks after its last stage."""
    blocks: Steps | None = None
    """How many blocks each replica is deeper than the one before; null goes by the architecture."""
    block: (
        Literal[
            "bottleneck",
            "inverted-residual",
            "transformer",
            "convnext",
            "swin",
            "focalnet",
            "maxvit",
            "efficientvit",
            "hiera",
            "encoder-layer",
        ]
        | None
    ) = None
    """What these blocks are; null goes by the architecture."""
    init: Literal["identity", "all-zero"] = "identity"
    """How blocks start; `all-zero` also zeroes all of their convolutions, which then never learn."""

    axis: ClassVar[bool] = True
    default_form: ClassVar[str] = "episode"
    accepts: ClassVar[str | None] = "depth"

    def settled(self, sites: Sites) -> Self:
        """See `ReplicaKind`."""
        site = _last_stage(sites)
        block = self.block or site.block
        known = CONVOLUTIONAL if site.block in CONVOLUTIONAL else (site.block,)
        if block not in known:
            raise UsageError(
                f"block {block!r} does not fit a {site.family}, which takes {' or '.join(known)}",
                hint=did_you_mean(block, known),
            )
        return self.model_copy(update={"block": block, "blocks": self.blocks or site.blocks})

    def places(self, sites: Sites) -> list[Place]:
        """See `ReplicaKind`."""
        site = _last_stage(sites)
        norms, masked = site.normalisations, site.block == ENCODER_LAYER
        return [
            LastStage(site.module, "output", width=site.width, normalisations=norms, beside=masked, site=site),
        ]

    def places_at(self, given: str | Place | Sequence[str | Place]) -> list[Place]:
        """See `ReplicaKind`."""
        raise UsageError("replicas of depth attach after the last stage, which is found", hint="leave site out")

    def site_document(self, sites: Sites) -> dict[str, Any]:
        """See `ReplicaKind`."""
        site = _last_stage(sites)
        return {"module": site.module, "width": site.width, "side": site.side}

    def site_summary(self, sites: Sites) -> dict[str, Any]:
        """See `ReplicaKind`; `depths` are those that the replicas reach, in `unit`, `depth` is the base's own."""
        site = _last_stage(sites)
        return {
            **{field: getattr(site, field) for field in _SHOWN},
            "depths": site.depths(self.replicas, self.blocks),
            "temporary_parameters": self.temporary_parameters(sites),
        }

    @classmethod
    def site_in_words(cls, site: Mapping[str, Any]) -> str:
        """See `ReplicaKind`."""
        place = super().site_in_words(site)
        if "depths" not in site:
            return place
        return f"depth {site['depth']} -> {', '.join(map(str, site['depths']))} {site['unit']}: {place}"

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`. The settings must be settled, and the place one of `places`."""
        from spgsurgeon.replicas.kinds.depth.module import block_maker, depth_chain

        assert isinstance(place, LastStage)
        assert place.site is not None
        assert self.block is not None
        assert self.blocks is not None
        make_block = block_maker(module, place.site, self.block, self.init)
        return depth_chain(module, replicas=self.replicas, blocks=self.blocks, make_block=make_block)

    def temporary_parameters(self, sites: Sites) -> int:
        """See `ReplicaKind`."""
        return _last_stage(sites).temporary_parameters(self.replicas, self.blocks)

    def step_labels(self, sites: Sites) -> list[str]:
        """Return the depth at each step."""
        site = _last_stage(sites)
        return [str(depth) for depth in (site.depth, *site.depths(self.replicas, self.blocks))]

    def words_on(self, sites: Sites) -> str:
        """See `ReplicaKind`: with the depth of the base and of each replica."""
        return f"{self.words()}, depth in {_last_stage(sites).unit} {' '.join(self.step_labels(sites))}"
