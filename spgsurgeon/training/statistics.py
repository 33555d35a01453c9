"""What an epoch's episodes looked like, summed on the device and read once at its end.

Shapes: T replicas; every sum has T+1 entries, one a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from spgsurgeon.objective.loss import SPGLoss
from spgsurgeon.training.processes import Processes, sum_dtype


class EpisodeStatistics:
    """Sums over the batches of an epoch; `saved` is what `totals` returned. Adding does not wait for the device."""

    def __init__(self, steps: int, processes: Processes, saved: Sequence[Sequence[float]] | None = None) -> None:
        dtype = sum_dtype(processes.device)
        self._processes = processes
        # Rows: the loss and the number of batches; units valid at each step; their summed cross entropy.
        sums = torch.zeros((3, max(steps, 2)), dtype=dtype)
        if saved is not None and processes.leads:  # totals are of all processes, so one goes on from them
            sums = torch.tensor(saved, dtype=dtype)
        self._sums = sums.to(processes.device)
        self._steps = steps

    def add(self, result: SPGLoss) -> None:
        """Count one batch."""
        sizes = result.step_sizes.detach()
        self._sums[0, 0] += result.loss.detach()
        self._sums[0, 1] += 1
        self._sums[1, : self._steps] += sizes
        self._sums[2, : self._steps] += result.step_losses.detach() * sizes

    def totals(self) -> list[list[float]]:
        """Return the sums over all processes, each of which must call it; waits for the device."""
        rows: list[list[float]] = self._processes.sum(self._sums).tolist()
        return rows


def summarize(totals: Sequence[Sequence[float]], labels: Sequence[str]) -> dict[str, Any]:
    """Return an epoch's means. `labels` names each step by what it accepts, a cumulative dropout rate or a depth.

    `valid_share` and `step_cross_entropy` have one entry a step; `accepted_units` counts, for each label, the units
    whose episode ended there.
    """
    steps = len(labels)
    loss, batches = totals[0][:2]
    valid, entropy = totals[1][:steps], totals[2][:steps]
    units = valid[0] or 1.0
    accepted = dict.fromkeys(labels, 0)  # steps may share one, as where the rate is 0
    for label, here, later in zip(labels, valid, [*valid[1:], 0.0], strict=True):
        accepted[label] += round(here - later)
    return {
        "loss": loss / batches,
        "step_cross_entropy": [e / v if v else None for e, v in zip(entropy, valid, strict=True)],
        "valid_share": [v / units for v in valid],
        "mean_episode_length": sum(valid) / units,
        "accepted_units": accepted,
    }
