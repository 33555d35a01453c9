"""What goes into an exported graph: tensors by name, of which some dimensions are left open."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from spgsurgeon.models.inputs import IMAGES

BATCH = "batch"
BATCH_SIZES = (1, 2, 3)
Sizes = Mapping[str, int]
"""How many there are along the open dimensions, by their names."""


@dataclass(frozen=True)
class GraphInputs:
    """What a graph takes, and how to make some of it.

    `open` has the names of each input's open dimensions by their places; `make` draws inputs of given sizes. A graph is
    `traced` at one of them and `compared` with its model at others.
    """

    open: Mapping[str, Mapping[int, str]]
    make: Callable[[Sizes, torch.Generator], dict[str, Tensor]]
    traced: Sizes
    compared: Sequence[Sizes]

    def example(self) -> dict[str, Tensor]:
        """Return the inputs that a graph is traced with, the same on every call."""
        return self.make(self.traced, torch.Generator().manual_seed(0))

    def batches(self, seed: int) -> list[dict[str, Tensor]]:
        """Return inputs of all sizes that a graph is compared at."""
        generator = torch.Generator().manual_seed(seed)
        return [self.make(sizes, generator) for sizes in self.compared]

    def without(self, name: str) -> GraphInputs:
        """Return the same without one of the inputs."""

        def make(sizes: Sizes, generator: torch.Generator) -> dict[str, Tensor]:
            made = self.make(sizes, generator)
            del made[name]
            return made

        return replace(self, open={key: value for key, value in self.open.items() if key != name}, make=make)


def image_inputs(input_size: Sequence[int], batch_sizes: Sequence[int] = BATCH_SIZES) -> GraphInputs:
    """Return images of `input_size` (channels, height, width), any number of them."""
    return GraphInputs(
        open={IMAGES: {0: BATCH}},
        make=lambda sizes, generator: {IMAGES: torch.randn(sizes[BATCH], *input_size, generator=generator)},
        traced={BATCH: 2},  # not 1, which torch.export would take for a constant
        compared=[{BATCH: size} for size in batch_sizes],
    )
