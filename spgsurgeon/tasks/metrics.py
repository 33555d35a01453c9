"""What a score is called, which way it is better, and how it is written."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """A score. `name` is its key among scores, `label` what people call it; `digits` are shown after the point."""

    name: str
    label: str
    higher_is_better: bool = True
    percent: bool = True
    digits: int = 3
    hub_name: str | None = None
    """What Hugging Face's Hub calls it, among its metrics."""

    @property
    def title(self) -> str:
        """The label and, of percentages, the sign: what stands above a column or beside an axis."""
        return f"{self.label} %" if self.percent else self.label

    @property
    def difference(self) -> str:
        """What a difference of two scores counts: "points of top-1"."""
        return f"points of {self.label}" if self.percent else self.label

    def merit(self, score: float) -> float:
        """Return a number that is larger for a better score."""
        return score if self.higher_is_better else -score

    def better(self, one: float, other: float) -> bool:
        """Return whether `one` is the better score of two; a NaN is never better."""
        return self.merit(one) > self.merit(other)

    def room(self, score: float) -> float:
        """Return by how much a score could still get better."""
        if not self.higher_is_better:
            return score
        return 100 - score if self.percent else math.inf

    def number(self, score: float, digits: int | None = None) -> str:
        """Return a score, or a difference of two, as people read it below the title: "71.230"."""
        places = self.digits if digits is None else digits
        return f"{round(score, places) + 0.0:.{places}f}"  # no minus before a zero

    def written(self, score: float, digits: int | None = None) -> str:
        """Return a score as people read it by itself: "71.230 %"."""
        return self.number(score, digits) + (" %" if self.percent else "")


LOSS = Metric("loss", "loss", higher_is_better=False, percent=False, digits=4)
"""The mean cross entropy of a unit, which every task has."""
