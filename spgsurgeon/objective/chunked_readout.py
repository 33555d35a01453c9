"""Readout of a head whose logits are too large to exist at once, as a language model's [(T+1)*N, L, V].

Shapes: N samples, T replicas, rows = (T+1)*N stacked step-major, D the width of hidden states, V classes (tokens of a
vocabulary); `units` = [N, L] for tokens; m_t units are counted and still valid at step t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node
from torch.utils.checkpoint import checkpoint

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.readout import Readout, check_rows, check_type, read_logits

Head = Callable[[Tensor], Tensor]

CHUNK = 256
"""Units whose logits exist at once, unless told otherwise."""


class DeferredLogits(NamedTuple):
    """Logits that are not made yet: what a model gives in their place where they are too many."""

    hidden: Tensor
    """[rows, ..., D]: what enters the head."""
    head: Head
    """Makes logits [n, V] of hidden states [n, D]."""

    @torch.no_grad()
    def likeliest(self) -> Tensor:
        """Return the class that each unit's logits are for, int64 [rows, ...]."""
        parts = [self.head(states).argmax(-1) for states in self.hidden.flatten(0, -2).split(CHUNK)]
        return torch.cat(parts).view(self.hidden.shape[:-1])


def read_hidden(
    hidden: Tensor,
    head: Head,
    target: Tensor,
    steps: int,
    *,
    chunk: int = CHUNK,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Readout:
    """Return what the logits `head(hidden)` are worth by class indices [N, ...], without ever having all of them.

    `hidden` is [rows, ..., D]. `head` turns any number of hidden states, [n, D], into their logits [n, V], each by
    itself; it sees `chunk` of them at a time, under the autocast that is on here, and again in the backward pass.
    Step t reads the m_t units that count and are valid there (eq. 13) and leaves the rest at a cross entropy of 0 and
    not correct, so the objective is that of all logits, and the memory and time of steps that few units reach is
    saved. To know which units these are, each step waits for the device.

    Raises UsageError for shapes and types that don't fit.
    """
    check_rows(hidden.shape[0] if hidden.dim() else 1, target, steps)
    check_type(target, soft=False, logits=hidden.shape)
    if hidden.shape[1:-1] != target.shape[1:] or hidden.dim() < 2:
        raise UsageError(
            f"hidden states of shape {list(hidden.shape)} need a class index for each of them, [N, ...] (got a target "
            f"of shape {list(target.shape)})",
            hint="the last dimension of hidden states is their width; all others are units",
            code="unfit-target",
        )
    if chunk < 1:
        raise UsageError(f"chunk must be at least 1 (got {chunk})")
    label = target.flatten()
    counted = valid = label != ignore_index
    entropies, corrects = [], []
    for states in hidden.unflatten(0, (steps, len(target))).flatten(1, -2).unbind(0):
        places = valid.nonzero().squeeze(1)
        ce, correct = _read_in_chunks(states[places], head, label[places], chunk, label_smoothing)
        entropies.append(ce.new_zeros(len(label)).index_copy(0, places, ce))
        valid = torch.zeros_like(counted).index_copy(0, places, correct)
        corrects.append(valid)
    shape = (steps, *target.shape)
    return Readout(torch.stack(entropies).view(shape), torch.stack(corrects).view(shape), counted.view(target.shape))


def _read_in_chunks(
    hidden: Tensor, head: Head, label: Tensor, chunk: int, label_smoothing: float
) -> tuple[Tensor, Tensor]:
    """Return cross entropy [n] and correct [n] of hidden states [n, D]."""
    # `split` gives one empty chunk if n is 0. The head sees it too: data-parallel processes wait for each other's
    # gradients, so each must have one for every parameter.
    read: list[tuple[Tensor, Tensor]] = []
    for states, labels in zip(hidden.split(chunk), label.split(chunk), strict=True):
        read.append(checkpoint(_read_chunk, states, head, labels, label_smoothing, use_reentrant=False))
        _sum_gradients_in_place(read[-1][0], states)
    ce, correct = zip(*read, strict=True)
    return torch.cat(ce), torch.cat(correct)


def _read_chunk(hidden: Tensor, head: Head, label: Tensor, label_smoothing: float) -> tuple[Tensor, Tensor]:
    device = hidden.device.type
    # Autocast would keep one copy of the weight for all chunks, and its gradient would be summed over them in bfloat16.
    with torch.autocast(
        device,
        dtype=torch.get_autocast_dtype(device),
        enabled=torch.is_autocast_enabled(device),
        cache_enabled=False,
    ):
        logits = head(hidden)
    if logits.dim() != 2:
        raise UsageError(
            f"the head must turn hidden states [n, D] into logits [n, V] (it gave {list(logits.shape)})",
            code="unfit-head",
        )
    read = read_logits(logits, label, 1, class_dim=1, label_smoothing=label_smoothing)
    return read.cross_entropy[0], read.correct[0]


def _sum_gradients_in_place(ce: Tensor, hidden: Tensor) -> None:
    """Let autograd add each chunk's gradient of a head's weight to that of the chunks before in place.

    It can't if the gradient is a view, which that of a linear layer's weight is (transposed). A third tensor of the
    weight's size is made then for the sum, and with a large vocabulary that is the peak of a whole step.
    """
    seen: set[Node | None] = {None, hidden.grad_fn}
    waiting = [ce.grad_fn]
    while waiting:
        node = waiting.pop()
        if node not in seen and node is not None:
            seen.add(node)
            following = [after for after, _ in node.next_functions]
            if any(after is not None and after.name() == "torch::autograd::AccumulateGrad" for after in following):
                node.register_hook(_as_owner)
            waiting += following


def _as_owner(gradients: tuple[Tensor | None, ...], _: object) -> tuple[Tensor | None, ...] | None:
    if torch.is_grad_enabled():  # gradients of gradients need the graph
        return None
    return tuple(gradient if gradient is None else gradient.detach() for gradient in gradients)
