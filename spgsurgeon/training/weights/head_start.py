"""Head start: plain epochs, without replicas, until the head of a model has learned something.

Episodes go by what the model gets right, and under a head that has learned nothing that is only what it gets right by
chance: one class, it may be, which it would then be taught.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from spgsurgeon.recipe import HeadStartSection
from spgsurgeon.replicas import GraftedModel
from spgsurgeon.training.weights.groups import SCALE, head_parameters

_HARDLY = 0.95  # of the loss of guessing: a head that is no better has not learned


class HeadStart:
    """The head start of a grafted model by a rule; `head` as in `parameter_groups`."""

    def __init__(self, grafted: GraftedModel, rule: HeadStartSection, head: Collection[str] | None = None) -> None:
        self._grafted, self._rule = grafted, rule
        learns = set(head_parameters(grafted, head)) if rule.freeze == "body" else set(grafted.base.parameters())
        self._still = [p for p in grafted.parameters() if p.requires_grad and p not in learns]
        self._norms = [
            module
            for module in grafted.base.modules()
            if getattr(module, "track_running_stats", False) and rule.freeze == "body" and not _reads(module, learns)
        ]

    @contextmanager
    def running(self) -> Iterator[None]:
        """Let only what learns have gradients inside the block."""
        for parameter in self._still:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in self._still:
                parameter.requires_grad_(True)

    def enter(self) -> None:
        """Turn train mode into that of a head start: replicas off, batch norms of what does not learn in eval mode."""
        self._grafted.replicas.eval()
        for module in self._norms:
            module.eval()

    def set_rate(self, optimizer: torch.optim.Optimizer, rate: float) -> None:
        """Set the learning rate, that of the rule or `rate` by each group's scale; it stays the same."""
        for group in optimizer.param_groups:
            group["lr"] = self._rule.lr or rate * group.get(SCALE, 1.0)

    def finished(self, epochs: int, before: float | None, loss: float) -> bool:
        """Return whether it ends after so many epochs, the last one's `loss` included."""
        if epochs >= self._rule.most_epochs:
            return True
        return self._rule.until is not None and before is not None and not loss < (1 - self._rule.tolerance) * before


def said_of(loss: float, classes: int) -> str | None:
    """Return what is to be said of a head start that ends with this loss."""
    chance = math.log(max(classes, 1))
    if classes < 2 or loss < _HARDLY * chance:  # what is chosen from is not always a class
        return None
    return (
        f"the head has hardly learned in its head start: the loss is {loss:.2f}, guessing has {chance:.2f}; "
        "head_start.lr sets a higher learning rate"
    )


def _reads(module: nn.Module, learns: Collection[nn.Parameter]) -> bool:
    """Return whether a module has a parameter of its own that learns."""
    return any(parameter in learns for parameter in module.parameters(recurse=False))
