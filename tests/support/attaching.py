"""Grafts at places that a test names, by a kind's name and settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from spgsurgeon.recipe.reading import replicas_of
from spgsurgeon.replicas import grafted
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.replicas.kinds.depth.module import depth_chain
from spgsurgeon.replicas.places import Place


def attach(
    base: nn.Module,
    places: str | Place | Sequence[str | Place],
    kind: str = "dropout",
    *,
    head_batch: str = "stacked",
    **settings: Any,
) -> GraftedModel:
    """Return `base` with replicas of this kind at the `places`."""
    return grafted.attach(base, places, replicas_of(kind, settings).chain, head_batch=head_batch)


def attach_blocks(
    base: nn.Module,
    place: Place,
    make_block: Callable[[], nn.Module],
    *,
    replicas: int,
    blocks: int = 1,
    head_batch: str = "stacked",
) -> GraftedModel:
    """Return `base` with replicas of depth made of these blocks at `place`."""

    def chain(stage: nn.Module, place: Place) -> Any:
        return depth_chain(stage, replicas=replicas, blocks=blocks, make_block=make_block)

    return grafted.attach(base, place, chain, head_batch=head_batch)
