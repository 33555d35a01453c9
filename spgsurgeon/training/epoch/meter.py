"""What an epoch takes: time, the part of it spent waiting for data, images a second, memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from spgsurgeon.data import Batch, TrainingBatches
from spgsurgeon.runtime import Processes, peak_memory

Read = TypeVar("Read")


class EpochMeter:
    """Starts with an epoch's first step, or its first after a resume."""

    def __init__(self, batches: TrainingBatches, processes: Processes) -> None:
        self._batches, self._processes = batches, processes
        self._started, self._worked = time.perf_counter(), batches.seconds
        self._waited, self._images = 0.0, 0

    def waiting(self, read: Callable[[], Read]) -> Read:
        """Return what `read` returns; the time for that is waiting for data."""
        asked = time.perf_counter()
        try:
            return read()
        finally:
            self._waited += time.perf_counter() - asked

    def count(self, parts: Sequence[Batch]) -> None:
        """Count the images of a step of this process."""
        self._images += sum(len(part.samples) for part in parts)

    def figures(self) -> dict[str, Any]:
        """Return the figures up to now; whoever asks has waited for the device.

        Images a second are those of all processes together, those of the loader are for a second of a worker's time.
        """
        seconds = time.perf_counter() - self._started
        return {
            "seconds": seconds,
            "data_seconds": self._waited,
            "data_share": self._waited / seconds,
            "loader_images_per_core_second": self._images / max(self._batches.seconds - self._worked, 1e-9),
            "images_per_second": self._images * self._processes.world_size / seconds,
            "peak_memory_bytes": peak_memory(self._processes.device),
        }
