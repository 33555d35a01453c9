"""What is known of the layers that make logits, where dropout replicas attach.

Shapes: D = width of a hidden state; C = number of classes; T replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Site:
    """The input of a layer that makes logits, where dropout replicas attach.

    `module` is its path in the model, `type` Linear or Conv2d, `width` the D of its input, `classes` its C.
    """

    module: str
    type: str
    width: int
    classes: int
    side: str = "input"


def temporary_parameters(sites: Iterable[Site], replicas: int) -> int:
    """Return how many parameters `replicas` at each site have: T (D^2 + D) (arXiv 2506.15051, eq. 14)."""
    return sum(replicas * (site.width**2 + site.width) for site in sites)


def sites_document(sites: Sequence[Site], *keys: str) -> dict[str, Any]:
    """Return the fields `keys` of the sites as plain data: lists where there are several sites."""
    columns = {key: [getattr(site, key) for site in sites] for key in keys}
    return {key: column if len(sites) > 1 else column[0] for key, column in columns.items()}
