"""The control without anything: plain retraining, by the same loop and the same loss."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.replicas.kinds.kind import Control, Sites

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.places import Place
    from spgsurgeon.replicas.stacking import ReplicaChain


class NoReplicas(Control):
    """No replicas, and nothing else in their place."""

    kind: Literal["none"] = "none"
    """`none`: the control, plain retraining."""

    retrained: ClassVar[str] = "plainly"
    method: ClassVar[str] = "by spgsurgeon without its method"

    @classmethod
    def leaves_out(cls, key: str) -> bool:
        """Leave out all that other kinds are told, so that `trp.kind` alone makes the control of any recipe."""
        return True

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`."""
        from spgsurgeon.replicas.stacking import ReplicaChain

        return ReplicaChain()

    def step_labels(self, sites: Sites) -> list[str]:
        """See `ReplicaKind`."""
        return ["0"]

    def words(self) -> str:
        """See `ReplicaKind`."""
        return "none: plain retraining, the control"
