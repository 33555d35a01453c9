"""What comes before the training proper: a start for a new head, and one for the optimizer."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from spgsurgeon.sections import BelowOne, Count, NonNegativeInt, Positive, Section, fault_at


class HeadStartSection(Section):
    """Plain epochs before the episodes begin: nothing is right but by chance under a head that has learned nothing."""

    epochs: NonNegativeInt | None = None
    """How many epochs. Null: `until: converged` if the head is new, otherwise none."""
    until: Literal["converged"] | None = None
    """`converged` stops once the loss has stopped falling, instead of after a fixed number of epochs."""
    max_epochs: Count = 5
    """The most epochs that `until` may take."""
    tolerance: BelowOne = 0.05
    """The loss has stopped falling if an epoch takes off less than this share of it."""
    freeze: Literal["body", "nothing"] = "body"
    """What does not learn meanwhile: `body`, all but the head, or `nothing`."""
    lr: Positive | None = None
    """Learning rate meanwhile, which stays the same; null is that of the optimizer, of the head its `head_lr`."""

    @property
    def most_epochs(self) -> int:
        """How many epochs it can take."""
        return (self.epochs or 0) if self.until is None else self.max_epochs

    @property
    def open(self) -> bool:
        """Whether it goes by the model's head."""
        return self.epochs is None and self.until is None

    def settled(self, *, new_head: bool) -> Self:
        """Return what it is for a model with such a head."""
        if not self.open:
            return self
        return self.model_copy(update={"until": "converged"} if new_head else {"epochs": 0})

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.until is not None and self.epochs:
            raise fault_at("until", f"until: {self.until} and epochs: {self.epochs} exclude each other; drop one")
        return self


class ColdStartSection(Section):
    """Filling the optimizer's moments at learning rate zero, before and not counted in training.epochs."""

    epochs: NonNegativeInt = 0
    """How many epochs; 0 is no cold start unless `until` says otherwise."""
    until: Literal["converged"] | None = None
    """`converged` stops once the moments have settled, instead of after a fixed number of epochs."""
    max_epochs: Count = 5
    """The most epochs that `until` may take."""
    tolerance: Positive = 0.1
    """How much the moments may still change from one epoch to the next and count as settled."""
    batch_norm: Literal["freeze", "track"] = "freeze"
    """Whether running statistics stay or follow the data meanwhile."""

    @property
    def most_epochs(self) -> int:
        """How many epochs it can take."""
        return self.epochs if self.until is None else self.max_epochs

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.until is not None and self.epochs > 0:
            raise fault_at("until", f"until: {self.until} and epochs: {self.epochs} exclude each other; drop one")
        return self
