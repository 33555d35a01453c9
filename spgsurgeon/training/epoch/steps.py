"""The steps of one epoch, each of which may be the last before a run is saved or left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.data import Batch, TrainingBatches
from spgsurgeon.runtime import Processes, StopNow
from spgsurgeon.training.epoch.meter import EpochMeter
from spgsurgeon.training.epoch.remarks import Remarks
from spgsurgeon.training.epoch.safekeeping import Safekeeping
from spgsurgeon.training.state import Counters, TrainingState
from spgsurgeon.training.statistics import EpisodeStatistics
from spgsurgeon.training.stepping import Stepper


class EpochSteps:
    """Does the steps that an epoch still has.

    `accumulate` batches make a step, the last of the epoch may have fewer; `enter_training` is called before the
    first. A run's first step `compiles` the model, which may take minutes. `tell_losses` hears the losses of steps, of
    this process's batches, whenever the device is waited for. If it `records`, the length of each
    sample's episode is remembered.
    """

    def __init__(
        self,
        state: TrainingState,
        stepper: Stepper,
        batches: TrainingBatches,
        processes: Processes,
        keeping: Safekeeping,
        remarks: Remarks,
        *,
        enter_training: Callable[[], None],
        tell_losses: Callable[[int, list[float]], None] | None = None,
        batches_per_epoch: int,
        accumulate: int,
        num_classes: int,
        compiles: bool,
        records: bool = False,
    ) -> None:
        self._state, self._stepper, self._batches = state, stepper, batches
        self._processes, self._keeping, self._remarks = processes, keeping, remarks
        self._enter_training, self._tell_losses = enter_training, tell_losses
        self._losses: list[Tensor] = []
        self._batches_per_epoch, self._accumulate, self._num_classes = batches_per_epoch, accumulate, num_classes
        self._recorded = len(batches.source) if records else 0
        self._compiles = compiles  # until the first step is done

    @property
    def _counters(self) -> Counters:
        return self._state.counters

    def take(self, *, update: bool, advance: Callable[[], None]) -> dict[str, Any]:
        """Take the epoch's steps, those of the training proper if they `update`; call `advance` after each.

        Returns what they took. The counters have the epoch's statistics then, and those of each checkpoint within it.
        """
        counters = self._counters
        steps = 1 if self._stepper.plain else self._state.grafted.steps
        recorded = self._recorded if steps > 1 else 0
        statistics = EpisodeStatistics(
            steps, self._num_classes, self._processes, counters.statistics, recorded=recorded
        )
        batches = self._batches.epoch(counters.epoch, counters.batch)
        self._keeping.unless_told_to_stop(self._batches.open)  # decoding once is no training time
        meter = EpochMeter(self._batches, self._processes)
        self._enter_training()
        while counters.batch < self._batches_per_epoch:
            parts = meter.waiting(lambda: self._read(batches))
            self._between_steps(statistics)
            expected = min(self._accumulate, self._batches_per_epoch - counters.batch)
            assert len(parts) == expected, "the epoch has fewer batches than the loader said"
            self._step(parts, statistics, update=update)
            meter.count(parts)
            counters.batch += len(parts)
            advance()
        self._between_steps(statistics)
        self._take_stock(statistics)  # waits for the device, so it comes before the clock is read
        return meter.figures()

    def _read(self, batches: Iterator[Batch]) -> list[Batch]:
        """Return the batches of one step: all of them, so that whatever ends a run here ends it between two steps.

        There may be fewer if the run was told to stop.
        """
        return self._keeping.unless_told_to_stop(lambda: list(islice(batches, self._accumulate))) or []

    def _step(self, parts: list[Batch], statistics: EpisodeStatistics, *, update: bool) -> None:
        try:
            with self._keeping.at_once(self._compiles):
                divisors = self._batches.divisors(self._counters.batch, len(parts))
                results = self._stepper.accumulate(parts, divisors)
        except StopNow:
            self._keeping.leave(save=False)  # nothing was done since it started
        self._compiles = False
        self._stepper.apply(results, statistics, update=update)
        if self._tell_losses is not None:
            self._losses.append(torch.stack([result.loss.detach() for result, *_ in results]).mean())

    def _between_steps(self, statistics: EpisodeStatistics) -> None:
        """Save if it is time, leave if any process was told to: all processes do the same after the same step."""
        wanted = self._keeping.wanted()
        if not wanted:
            return
        self._take_stock(statistics)
        if wanted > 1:
            self._keeping.leave(wanted // 2)
        self._keeping.save()

    def _take_stock(self, statistics: EpisodeStatistics) -> None:
        """Bring the counters up to date with what is counted on the devices; waits for all of them."""
        self._stepper.settle()
        self._counters.statistics = statistics.totals()
        self._remarks.unreadable(self._counters)
        if self._losses and self._tell_losses is not None:
            losses, self._losses = torch.stack(self._losses).tolist(), []
            self._tell_losses(self._counters.step + 1 - len(losses), losses)
