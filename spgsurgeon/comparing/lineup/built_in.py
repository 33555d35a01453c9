"""The arms that a comparison can have without the recipe's saying so.

Help texts list them, so nothing heavy is imported here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from spgsurgeon.replicas import kinds

if TYPE_CHECKING:
    from spgsurgeon.replicas import ReplicaKind

PLAIN, SEARCH = "plain", "search"


def _kept(replicas: ReplicaKind, kind: str, *keys: str) -> dict[str, Any]:
    """Return a trp section of another kind with the settings `keys` of these replicas, or else its own defaults."""
    own = kinds.kind_named(kind).model_fields
    return {"trp": {"kind": kind} | {key: getattr(replicas, key, own[key].default) for key in keys}}


BUILT_IN: dict[str, Callable[[ReplicaKind], dict[str, Any]]] = {
    PLAIN: lambda trp: {"trp.kind": kinds.PLAIN},
    "spg": lambda trp: {},
    "spg-step": lambda trp: {"objective.form": "step"},
    "spg-episode": lambda trp: {"objective.form": "episode"},
    "spg-episode-mean": lambda trp: {"objective.form": "episode-mean"},
    "dropout": lambda trp: _kept(trp, "fixed-dropout", "rate"),
    SEARCH: lambda trp: _kept(trp, "fixed-dropout"),  # and the rate that it finds
    "no-projection": lambda trp: {"trp.projection": False},
    "r-drop": lambda trp: {"trp.kind": kinds.PLAIN, "objective.r_drop": 1.0},
    "gce": lambda trp: {"trp.kind": kinds.PLAIN, "objective.gce": 0.7, "objective.label_smoothing": 0.0},
    "label-smoothing": lambda trp: {"trp.kind": kinds.PLAIN, "objective.gce": 0.0, "objective.label_smoothing": 0.1},
    "small-loss": lambda trp: {"trp.kind": kinds.PLAIN, "objective.small_loss": 0.7},
    "rollouts": lambda trp: {"trp.rollouts": True},
    "depth": lambda trp: _kept(trp, "depth", "replicas"),
}
"""What each arm changes in a recipe with these replicas. `plain` is what the others are measured against."""
