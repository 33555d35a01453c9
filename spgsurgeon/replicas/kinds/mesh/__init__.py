"""A mesh of two kinds of replicas: every step of one with each of the other, as the paper's outlook has it.

Cell (i, j) has the hidden state of i steps along the first axis and j along the second. The axis that acts on the pass
first is the last one; what acts later gets the cells of those before it as further rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, Strict, field_validator

from spgsurgeon.replicas.kinds import DEFAULT, kinds
from spgsurgeon.replicas.kinds.depth import Depth
from spgsurgeon.replicas.kinds.dropout import Dropout
from spgsurgeon.replicas.kinds.kind import ReplicaKind, Sites
from spgsurgeon.replicas.places import Place
from spgsurgeon.sections import OneOf

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.stacking import ReplicaChain


def _axis_kinds() -> dict[str, type[ReplicaKind]]:
    return {name: kind for name, kind in kinds().items() if kind.axis}


def _usual_axes() -> tuple[ReplicaKind, ...]:
    return (Dropout.model_construct(), Depth.model_construct())


class Mesh(ReplicaKind):
    """Replicas of two kinds at once."""

    kind: Literal["mesh"] = "mesh"
    """`mesh`: replicas of two kinds at once, a prediction for each pair of their steps."""
    axes: Annotated[
        tuple[Annotated[ReplicaKind, OneOf(_axis_kinds, by="kind", default=DEFAULT)], ...],
        Strict(False),
        Field(min_length=2, max_length=2, default_factory=_usual_axes),
    ]
    """The two axes of a mesh, each a kind with its settings: two that attach to the heads, or one of them and depth,
    which comes last. The number of cells is the product of their steps."""

    accepts: ClassVar[str | None] = "cells"

    @field_validator("axes")
    @classmethod
    def _can_be_crossed(cls, axes: tuple[ReplicaKind, ...]) -> tuple[ReplicaKind, ...]:
        for axis in axes:
            if axis.head_mode != "stacked":
                raise ValueError(f"all cells go through the heads at once, and an axis is {axis.head_mode}")
        first, *others = sorted(axes, key=lambda axis: isinstance(axis, Depth))
        if isinstance(first, Depth):
            raise ValueError("both axes are depth, which is one chain: give it more replicas")
        return (first, *others)

    @property
    def length(self) -> int:
        """T of the longest axis; each takes as many of the objective's weights as it has replicas."""
        return max(axis.length for axis in self.axes)

    @property
    def length_key(self) -> str:
        """See `ReplicaKind`."""
        return "the longest of trp.axes"

    @property
    def shape(self) -> tuple[int, ...]:
        """How many steps each axis has."""
        return tuple(axis.length + 1 for axis in self.axes)

    def document(self) -> dict[str, Any]:
        """See `ReplicaKind`."""
        return {"kind": self.kind, "axes": [axis.document() for axis in self.axes]}

    def settled(self, sites: Sites) -> Self:
        """See `ReplicaKind`."""
        return self.model_copy(update={"axes": tuple(axis.settled(sites) for axis in self.axes)})

    def places(self, sites: Sites) -> list[Place]:
        """See `ReplicaKind`: those of both axes, in the order in which they act."""
        return self._in_order([axis.places(sites) for axis in self.axes])

    def places_at(self, given: str | Place | Sequence[str | Place]) -> list[Place]:
        """See `ReplicaKind`. Raises UsageError if an axis has to find its own."""
        return self._in_order([axis.places_at(given) for axis in self.axes])

    def _in_order(self, places: Sequence[Sequence[Place]]) -> list[Place]:
        return [replace(place, axis=axis) for axis in reversed(range(len(places))) for place in places[axis]]

    def site_document(self, sites: Sites) -> dict[str, Any]:
        """See `ReplicaKind`: that of the first axis, which is at the heads, and those of both."""
        found = [axis.site_document(sites) for axis in self.axes]
        return found[0] | {"axes": found}

    @classmethod
    def site_in_words(cls, site: Mapping[str, Any]) -> str:
        """See `ReplicaKind`."""
        words = [super(Mesh, cls).site_in_words(axis) for axis in site["axes"]]
        return " and ".join(dict.fromkeys(words))

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`. The place must be one of `places` or `places_at`."""
        from spgsurgeon.replicas.kinds.mesh.module import crossed

        return crossed(self.axes[place.axis].chain(module, place), prod(self.shape[place.axis + 1 :]))

    def temporary_parameters(self, sites: Sites) -> int:
        """See `ReplicaKind`: the sum over axes, as the cells of a mesh share the replicas of its axes."""
        return sum(axis.temporary_parameters(sites) for axis in self.axes)

    def step_labels(self, sites: Sites) -> list[str]:
        """Return the values of each cell: `0.36 x 12`."""
        return [" x ".join(values) for values in product(*(axis.step_labels(sites) for axis in self.axes))]

    def length_labels(self, sites: Sites) -> list[str]:
        """Return numbers of cells."""
        return [str(cells) for cells in range(1, prod(self.shape) + 1)]

    def words(self) -> str:
        """See `ReplicaKind`: `mesh of 2 dropout replicas, rate 0.2, and of 2 depth replicas, init identity`."""
        return f"mesh of {', and of '.join(axis.words() for axis in self.axes)}"

    def words_on(self, sites: Sites) -> str:
        """See `ReplicaKind`."""
        return f"mesh of {', and of '.join(axis.words_on(sites) for axis in self.axes)}"
