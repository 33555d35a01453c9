"""What the score of a run is measured against: the original, if that meant anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

NO_ORIGINAL = {
    "head": "trained from an untrained head: no original to compare with",
    "all": "trained from random weights: no original to compare with",
}
"""What is said of a run by what of its model had learned nothing before."""


@dataclass(frozen=True)
class Basis:
    """What the best checkpoint is compared with: the `scores` of `name`; None if there is nothing that means anything.

    `said` is said of a run that has no original.
    """

    name: str
    scores: Mapping[str, Any] | None
    said: str | None = None


def basis_of(original: Mapping[str, Any] | None, started: Mapping[str, Any] | None, untrained: str | None) -> Basis:
    """Return the basis of a run by its scores, those at the end of a head start included, and what was `untrained`."""
    if untrained is None:
        return Basis("the original", original)
    return Basis("the model after its head start", started, NO_ORIGINAL.get(untrained, NO_ORIGINAL["all"]))


def basis_of_counters(counters: Mapping[str, Any]) -> Basis:
    """Return the basis of a run by the counters of a checkpoint; those of earlier versions know of no new heads."""
    return basis_of(counters.get("original"), counters.get("started"), counters.get("untrained"))
