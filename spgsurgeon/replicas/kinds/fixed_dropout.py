"""The control with dropout of one rate on the base's own step: the classical form of the hyperparameter."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from spgsurgeon.replicas.kinds.kind import Control, Sites
from spgsurgeon.sections import BelowOne

if TYPE_CHECKING:
    from torch import nn

    from spgsurgeon.replicas.places import Place
    from spgsurgeon.replicas.stacking import ReplicaChain


class FixedDropout(Control):
    """No replicas; in train mode, dropout falls on what the head reads."""

    kind: Literal["fixed-dropout"] = "fixed-dropout"
    """`fixed-dropout`: a control without replicas, plain retraining with dropout on what the head reads."""
    rate: BelowOne = 0.2
    """Dropout rate, the same in each step of training."""

    retrained: ClassVar[str] = "with dropout"
    method: ClassVar[str] = "by spgsurgeon without its method, with dropout of a fixed rate on what its head reads"

    @classmethod
    def leaves_out(cls, key: str) -> bool:
        """Leave out what is said of steps, so that `trp.kind` alone makes the control of a dropout recipe."""
        return key in ("replicas", "head_batch")

    def chain(self, module: nn.Module, place: Place) -> ReplicaChain:
        """See `ReplicaKind`."""
        from torch.nn.functional import dropout

        from spgsurgeon.replicas.stacking import ReplicaChain

        return ReplicaChain(base_step=partial(dropout, p=self.rate))

    def step_labels(self, sites: Sites) -> list[str]:
        """See `ReplicaKind`."""
        return [f"{self.rate:.4g}"]

    def words(self) -> str:
        """See `ReplicaKind`."""
        return f"none: plain retraining with dropout of rate {self.rate:g} before the head, a control"
