"""What is known of the places where replicas attach: shared heads, for dropout, and last stages, for depth.

Shapes: D = width of a hidden state; C = number of classes; T replicas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Site:
    """The input of a shared head, where dropout replicas attach.

    `module` is its path in the model; `type` is Linear or Conv2d, or the class of a segmentation head (then the hidden
    state is a map); `width` is the D of its input, `classes` its C. Where a head reads several maps by name, `key` is
    the name of this one.
    """

    module: str
    type: str
    width: int
    classes: int
    key: str | None = None
    side: str = "input"


ENCODER_LAYER = "encoder-layer"
"""A block that is a layer of one of transformers' encoders: it reads masks beside the hidden state."""


@dataclass(frozen=True)
class DepthSite:
    """The output of the last stage, where depth replicas attach; all that follows it is the shared head.

    `module` is the path of the base's last residual block, `width` the D of what leaves it.

    `family` names the entry of the family table (`families.py`), `block` the kind of block that a replica appends
    and `blocks` how many of them by default. `depth` is the base's own, counted in `unit` ("layers" with weights on the
    main path, or "blocks"), and `block_depth` how much a block adds to it; `block_parameters` is one block's number of
    parameters. `normalisations` are the batch norms after the site.

    Where new blocks are of the kind of `module`, `last` are the paths in it of what ends its residual branches, and
    `scales` of what scales them. `activated`: the hidden state is an activation's.
    """

    module: str
    width: int
    family: str
    block: str
    blocks: int
    block_parameters: int
    depth: int
    block_depth: int
    unit: str
    last: tuple[str, ...] = ()
    scales: tuple[str, ...] = ()
    activated: bool = False
    normalisations: tuple[str, ...] = ()
    side: str = "output"

    def depths(self, replicas: int, blocks: int | None = None) -> list[int]:
        """Return the depth that each of `replicas` reaches, for `blocks` (default: the family's) in each."""
        step = (blocks or self.blocks) * self.block_depth
        return [self.depth + t * step for t in range(1, replicas + 1)]

    def temporary_parameters(self, replicas: int, blocks: int | None = None) -> int:
        """Return how many parameters `replicas` of `blocks` blocks each have."""
        return replicas * (blocks or self.blocks) * self.block_parameters


ACTIVATION, NORM, BLOCK, TOKENS = "activation", "batch norm", "residual block", "tokens"
INNER = (ACTIVATION, NORM, BLOCK, TOKENS)
"""What replicas may run again: the last activation, batch norm and residual block, a transformer's last tokens."""


@dataclass(frozen=True)
class InnerSite:
    """A layer of the body whose output all that follows reads, and nothing that comes before it beside.

    `module` is its path in the model; the site is its call number `call` (from 0) of `calls` in one pass. `width` is
    the D of what leaves it, `normalisations` are the batch norms after it. `value` is the layer's own value of what
    replicas change there, such as a negative slope; `prefix` is how many of its tokens are of no patch.
    """

    module: str
    width: int
    call: int = 0
    calls: int = 1
    value: float = 0.0
    prefix: int = 0
    normalisations: tuple[str, ...] = ()


def sites_document(sites: Sequence[Site], *keys: str) -> dict[str, Any]:
    """Return the fields `keys` of the sites as plain data: lists where there are several sites."""
    columns = {key: [getattr(site, key) for site in sites] for key in keys}
    return {key: column if len(sites) > 1 else column[0] for key, column in columns.items()}
