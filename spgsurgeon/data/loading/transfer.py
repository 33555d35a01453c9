"""Batches, and numbers that go with them, on their way to the device, beside what it computes."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

Tree = TypeVar("Tree")


class Transfer:
    """Moves tensors to a device. On CUDA the copies have a stream of their own.

    The process asks for a batch while the device still computes on the one before, so the copy runs beside that and
    what is computed next waits for nothing but the copy.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = _copy_stream(_index_of(device)) if device.type == "cuda" else None

    def __call__(self, tree: Tree) -> Tree:
        """Return tuples and mappings of tensors with all of them on the device, to be used on its current stream.

        Those that are there stay as they are.
        """
        if self._stream is None or all(tensor.device.type == "cuda" for tensor in tree_leaves(tree)):
            return self._moved(tree)
        with torch.cuda.stream(self._stream):
            moved = self._moved(tree)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in tree_leaves(moved):
            tensor.record_stream(current)  # its memory is not given out again before this stream is done with it
        return moved

    def _moved(self, tree: Tree) -> Tree:
        moved: Tree = tree_map(lambda tensor: tensor.to(self._device, non_blocking=True), tree)
        return moved


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor of the host's memory on the device; the process goes on before the device comes to the copy.

    For that the memory must be pinned: a copy from any other, unless it is small, waits for what the device computes.
    """
    return (tensor.pin_memory() if device.type == "cuda" else tensor).to(device, non_blocking=True)


def _index_of(device: torch.device) -> int:
    return torch.cuda.current_device() if device.index is None else device.index


@cache
def _copy_stream(index: int) -> torch.cuda.Stream:
    """Return the stream for copies to CUDA device number `index`, the same for all.

    What is freed on a stream stays with it, so each further one would hold memory for a few batches of its own.
    """
    return torch.cuda.Stream(index)
