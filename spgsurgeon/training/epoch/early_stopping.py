"""Ending a run whose score does not get better."""

from __future__ import annotations

from spgsurgeon.recipe import EarlyStoppingSection
from spgsurgeon.tasks import Metric
from spgsurgeon.training.state import TrainingState


class EarlyStopping:
    """Counts the epochs that were not better, in the run's counters, so that a resumed run ends as a whole one."""

    def __init__(self, rule: EarlyStoppingSection, metric: Metric, state: TrainingState) -> None:
        self._rule, self._metric, self._state = rule, metric, state

    def count(self, score: float) -> None:
        """Count an epoch by its score."""
        counters, merit = self._state.counters, self._metric.merit
        if counters.to_beat is None or merit(score) - merit(counters.to_beat) > self._rule.min_delta:
            counters.to_beat, counters.waited = score, 0
        else:
            counters.waited += 1

    @property
    def due(self) -> bool:
        """Whether the score has not got better for as long as the rule allows."""
        return self._rule.patience is not None and self._state.counters.waited >= self._rule.patience
