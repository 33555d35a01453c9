"""Batches on their way to the device, beside what it computes."""

from __future__ import annotations

import torch
from torch import Tensor


class Transfer:
    """Moves tensors to a device. On CUDA the copies have a stream of their own.

    The process asks for a batch while the device still computes on the one before, so the copy runs beside that and
    what is computed next waits for nothing but the copy.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Return the tensors on the device, to be used on its current stream; those that are there stay as they are."""
        if self._stream is None or all(tensor.device.type == "cuda" for tensor in tensors):
            return tuple(tensor.to(self._device, non_blocking=True) for tensor in tensors)
        with torch.cuda.stream(self._stream):
            moved = tuple(tensor.to(self._device, non_blocking=True) for tensor in tensors)
        current = torch.cuda.current_stream(self._device)
        current.wait_stream(self._stream)
        for tensor in moved:
            tensor.record_stream(current)  # its memory is not given out again before this stream is done with it
        return moved
