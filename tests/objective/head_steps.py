"""Training steps of a language model's head, and what they take at their height."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spgsurgeon.benchmarking.profile import profile_step
from spgsurgeon.objective.chunked_readout import read_hidden
from spgsurgeon.objective.loss import loss_of_readout, spg_loss


class HeadStep:
    """The last part of a training step, on hidden states [(T+1)*N, L, D] whose every unit is right at every step."""

    def __init__(self, vocabulary: int, tokens: int, width: int, weights: tuple[float, ...], device: torch.device):
        torch.manual_seed(0)
        self.weights, self.device = weights, device
        self.head = nn.Linear(width, vocabulary, bias=False, device=device)
        base = torch.randn(1, tokens, width, device=device)
        self.hidden = base.repeat(len(weights) + 1, 1, 1).requires_grad_()
        with torch.no_grad():
            self.target = torch.cat([self.head(part).argmax(-1) for part in base[0].split(32)])[None]

    def plain(self) -> Tensor:
        """The loss of a model without replicas, as torch's own loss has it."""
        return cross_entropy(self.head(self.hidden[:1]).flatten(0, 1), self.target.flatten())

    def stacked(self) -> Tensor:
        """The objective, on all logits at once."""
        return spg_loss(self.head(self.hidden), self.target, self.weights, class_dim=-1).loss

    def chunked(self, chunk: int) -> Tensor:
        """The objective, with the logits of `chunk` units at once."""
        readout = read_hidden(self.hidden, self.head, self.target, len(self.weights) + 1, chunk=chunk)
        return loss_of_readout(readout, self.weights).loss

    def peak(self, loss: Callable[[], Tensor]) -> int:
        """Return the most bytes that loss and gradient take at once, above what was there before."""

        def step() -> None:
            torch.autograd.grad(loss(), [self.hidden, self.head.weight])

        if self.device.type != "cuda":
            return profile_step(step, self.device).peak_bytes
        before = torch.cuda.memory_allocated(self.device)
        torch.cuda.reset_peak_memory_stats(self.device)
        step()
        return torch.cuda.max_memory_allocated(self.device) - before
