"""What is grafted onto a base, and how: from a kind of replicas and its settings to a grafted model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from torch import nn

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.models.sites.heads import DepthSite, Site, sites_document
from spgsurgeon.replicas.blocks import ConvolutionalBlock, bottleneck, inverted_residual, like, zero_all, zero_last
from spgsurgeon.replicas.dropout import cumulative_rates
from spgsurgeon.replicas.grafted import GraftedModel, attach
from spgsurgeon.replicas.places import Place

_CONVOLUTIONAL: dict[str, Callable[..., ConvolutionalBlock]] = {
    "bottleneck": bottleneck,
    "inverted-residual": inverted_residual,
}
INITS = ("identity", "all-zero")
SETTINGS = {
    "dropout": ("replicas", "rate"),
    "depth": ("replicas", "blocks", "block", "init"),
    "fixed-dropout": ("rate",),
}


class Sites(Protocol):
    """Where replicas can attach to a base; looked for only when asked, since either may not be there."""

    @property
    def sites(self) -> Sequence[Site]:
        """The inputs of its heads."""

    @property
    def depth_site(self) -> DepthSite:
        """The output of its last stage."""


@dataclass(frozen=True)
class Replicas:
    """What to graft: a kind of `trp.grafted.REPLICAS` and its settings; those of other kinds mean nothing.

    `rate` is that of dropout, also where it is fixed. `blocks` and `block` are depth's, None for what the base's family
    has; `init` "all-zero" zeroes all of their convolutions, as the paper says it, and none of these will move.
    """

    kind: str = "dropout"
    replicas: int = 3
    rate: float = 0.2
    blocks: int | None = None
    block: str | None = None
    init: str = "identity"

    def settled(self, base: Sites) -> Replicas:
        """Return the replicas with the defaults of the base's family filled in. Raises UsageError for what can't be."""
        if self.kind != "depth":
            return self
        site = base.depth_site
        block = self.block or site.block
        known = list(_CONVOLUTIONAL) if site.block in _CONVOLUTIONAL else [site.block]
        if block not in known:
            raise UsageError(
                f"block {block!r} does not fit a {site.family}, which takes {' or '.join(known)}",
                hint=did_you_mean(block, known),
            )
        if self.init not in INITS:
            raise UsageError(f"init is {' or '.join(INITS)}, not {self.init!r}", hint=did_you_mean(self.init, INITS))
        return replace(self, block=block, blocks=site.blocks if self.blocks is None else self.blocks)

    def settings(self) -> dict[str, Any]:
        """Return the settings that this kind has."""
        return {key: getattr(self, key) for key in SETTINGS.get(self.kind, ())}

    def document(self) -> dict[str, Any]:
        """Return the kind and its settings as plain data: what `graft.json` calls `trp`."""
        return {"kind": self.kind, **self.settings()}


DROPOUT = Replicas()
"""Three dropout replicas at the paper's rate."""


def replicas_from(document: Mapping[str, Any]) -> Replicas:
    """Return what `Replicas.document` was made of."""
    return Replicas(**document)


def attach_replicas(base: nn.Module, sites: Sites, replicas: Replicas, head_batch: str = "stacked") -> GraftedModel:
    """Return `base` grafted with `replicas`, settled; see `attach`. New weights are drawn by torch's own generator."""
    if replicas.kind == "depth":
        site = sites.depth_site
        assert replicas.block is not None, "replicas must be settled first"
        place = Place(site.module, "output", width=site.width, normalisations=site.normalisations)
        return attach(
            base,
            place,
            "depth",
            head_batch=head_batch,
            replicas=replicas.replicas,
            blocks=replicas.blocks,
            make_block=_block_maker(base, site, replicas.block, replicas.init),
        )
    return attach(base, places_of(sites.sites), replicas.kind, head_batch=head_batch, **replicas.settings())


def places_of(sites: Sequence[Site]) -> list[Place]:
    """Return the inputs of the heads as places; the layers of logits tell their width themselves."""
    return [
        Place(site.module, key=site.key, width=None if site.type in ("Linear", "Conv2d") else site.width)
        for site in sites
    ]


def site_document(sites: Sites, replicas: Replicas) -> dict[str, Any]:
    """Return where the replicas are, as plain data: what `graft.json` calls `site`."""
    if replicas.kind == "depth":
        site = sites.depth_site
        return {"module": site.module, "width": site.width, "side": site.side}
    keys = ["module", "width", "side", *(["key"] if any(site.key for site in sites.sites) else [])]
    return sites_document(sites.sites, *keys) | {"side": sites.sites[0].side}


def step_labels(sites: Sites, replicas: Replicas) -> list[str]:
    """Return what an episode that ends at each of the T+1 steps has accepted: a dropout rate, or a depth."""
    if replicas.kind == "depth":
        site = sites.depth_site
        return [str(depth) for depth in (site.depth, *site.depths(replicas.replicas, replicas.blocks))]
    if replicas.kind == "fixed-dropout":
        return [f"{replicas.rate:.4g}"]
    rates = cumulative_rates(replicas.rate, replicas.replicas) if replicas.kind == "dropout" else [0.0]
    return [f"{rate:.4g}" for rate in rates]


def _block_maker(base: nn.Module, site: DepthSite, block: str, init: str) -> Callable[[], nn.Module]:
    template = base.get_submodule(site.module)

    def make() -> nn.Module:
        new: nn.Module
        last: Sequence[str]
        if block in _CONVOLUTIONAL:
            new, last = _CONVOLUTIONAL[block](site.width, template, activated=site.activated), ConvolutionalBlock.last
        else:
            new, last = like(template, site.scales), site.last
        return zero_all(new) if init == "all-zero" else zero_last(new, last)

    return make
