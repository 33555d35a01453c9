"""How long each training sample's episode is in an epoch, if a run is to record that."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from spgsurgeon.runtime import Processes


class LengthsBySample:
    """The length of each sample's episode, [samples]; 0 for one that was not seen, or did not count.

    Of a sample that an epoch has several times it is the longest. `saved` is what `total` returned before.
    """

    def __init__(self, samples: int, processes: Processes, saved: Sequence[float] | None = None) -> None:
        self._processes = processes
        lengths = torch.zeros(samples, dtype=torch.int32)
        if saved is not None and processes.leads:  # it is of all processes, so one goes on from it
            lengths[:] = torch.tensor(saved)
        self._lengths = lengths.to(processes.device)

    def add(self, samples: Tensor, lengths: Tensor, counted: Tensor) -> None:
        """Note the lengths [N] of the samples [N] that are counted, bool [N]."""
        self._lengths.scatter_reduce_(0, samples, lengths.masked_fill(~counted, 0).int(), "amax")

    def total(self) -> list[float]:
        """Return the lengths over all processes, each of which must call it; waits for the device."""
        lengths: list[float] = torch.stack(self._processes.gather(self._lengths)).amax(0).tolist()
        return lengths
