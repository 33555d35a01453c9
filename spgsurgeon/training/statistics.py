"""What an epoch's episodes looked like, summed on the device and read once at its end.

Shapes: T replicas; every sum has T+1 entries, one a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.objective.loss import SPGLoss
from spgsurgeon.training.processes import Processes


class EpisodeStatistics:
    """Sums over the batches of an epoch. Adding a batch does not wait for the device."""

    def __init__(self, steps: int, processes: Processes, saved: Sequence[Sequence[float]] | None = None) -> None:
        dtype = torch.float32 if processes.device.type == "mps" else torch.float64
        self._processes = processes
        # Rows: the loss and the number of batches; units valid at each step; their summed cross entropy.
        shape = (3, max(steps, 2))
        self._sums = torch.zeros(shape, dtype=dtype) if saved is None else torch.tensor(saved, dtype=dtype)
        self._sums = self._sums.to(processes.device)
        self._steps = steps

    def add(self, result: SPGLoss) -> None:
        """Count one batch."""
        sizes = result.step_sizes.detach()
        self._sums[0, 0] += result.loss.detach()
        self._sums[0, 1] += 1
        self._sums[1, : self._steps] += sizes
        self._sums[2, : self._steps] += result.step_losses.detach() * sizes

    def state(self) -> list[list[float]]:
        """Return this process's sums, for a checkpoint."""
        rows: list[list[float]] = self._sums.tolist()
        return rows

    def summary(self, cumulative_rates: Sequence[float]) -> dict[str, Any]:
        """Return the epoch's means over all processes; waits for the device.

        `valid_share` and `step_cross_entropy` have one entry a step; `accepted_units` counts, for each cumulative rate,
        the units whose episode ended there.
        """
        sums: Tensor = self._processes.sum(self._sums)
        loss, batches = sums[0, :2].tolist()
        valid: list[float] = sums[1, : self._steps].tolist()
        entropy: list[float] = sums[2, : self._steps].tolist()
        units = valid[0] or 1.0
        accepted = [here - later for here, later in zip(valid, [*valid[1:], 0.0], strict=True)]
        return {
            "loss": loss / batches,
            "step_cross_entropy": [e / v if v else None for e, v in zip(entropy, valid, strict=True)],
            "valid_share": [v / units for v in valid],
            "mean_episode_length": sum(valid) / units,
            "accepted_units": {f"{rate:.4g}": round(n) for rate, n in zip(cumulative_rates, accepted, strict=True)},
        }
