"""More epochs for a run that resumes: possible if its learning rate does not go by how many there are."""

from __future__ import annotations

from spgsurgeon.errors import UsageError
from spgsurgeon.recipe import Recipe

EPOCHS = "training.epochs"
_WITHOUT_AN_END = ("constant", "step")
"""Schedules of which an epoch has the same rate however many follow."""


def may_rise(before: Recipe, now: Recipe) -> bool:
    """Return whether a run by the recipe `before` can have the epochs that it has `now`, and be as if it always had."""
    return now.training.epochs >= before.training.epochs and before.training.schedule.name in _WITHOUT_AN_END


def check_epochs(before: Recipe, now: Recipe) -> None:
    """Raise UsageError, with the reason, for other epochs than a run can have."""
    was, wanted, schedule = before.training.epochs, now.training.epochs, before.training.schedule.name
    if was == wanted or may_rise(before, now):
        return
    if wanted < was:
        raise UsageError(
            f"the run was started with {EPOCHS}={was}, and can't have fewer ({wanted})",
            hint="leave it out; stopped at any time, a run keeps its checkpoints",
            code="fewer-epochs",
        )
    raise UsageError(
        f"{EPOCHS} can't be raised from {was} to {wanted}: the learning rate goes by how many epochs there are "
        f"(schedule {schedule}), and those that are done would have had other rates",
        hint=f"start another run; with schedule {' or '.join(_WITHOUT_AN_END)} epochs can be added",
        code="schedule-has-an-end",
    )
