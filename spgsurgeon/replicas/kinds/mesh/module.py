"""What makes a chain of replicas an axis of a mesh.

Shapes: N samples; rows are B blocks of N, block-major: the cells of the axes that act before.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spgsurgeon.replicas.stacking import ReplicaChain


class SharedDraws(nn.Module):
    """Has a perturbation draw once for all blocks, so that what it does to a sample it does in each of its cells."""

    def __init__(self, perturbation: nn.Module, blocks: int) -> None:
        super().__init__()
        self.perturbation = perturbation
        self.blocks = blocks

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the hidden states [B*N, ...] perturbed; in eval mode the perturbation has nothing to draw."""
        if not self.perturbation.training:
            unchanged: Tensor = self.perturbation(hidden)
            return unchanged
        blocks = hidden.unflatten(0, (self.blocks, -1))
        perturbed: Tensor = torch.func.vmap(self.perturbation, randomness="same")(blocks)
        return perturbed.flatten(0, 1)


def _holds_nothing(module: nn.Module) -> bool:
    held = (*module.children(), *module.parameters(recurse=False), *module.buffers(recurse=False))
    return not held


def crossed(chain: ReplicaChain, blocks: int) -> ReplicaChain:
    """Return a chain that gets rows of so many blocks, whose perturbations (modules that hold nothing) are shared."""
    chain.blocks = blocks
    if blocks > 1:
        for parent in list(chain.modules()):
            for name, part in list(parent.named_children()):
                if _holds_nothing(part):
                    setattr(parent, name, SharedDraws(part, blocks))
    return chain
