"""How much units count in the loss by their class, as a recipe says it.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from spgsurgeon.data import Source, form_of
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.tasks import Task

Weights = Literal["balanced"] | Mapping[str, float] | None


def class_weights(said: Weights, source: Source[Any], form: str, task: Task) -> Tensor | None:
    """Return the weights of the classes, float32 [C], of the training data, which is of this `form`; None for none.

    Balanced, a class weighs N / (C * its samples), so that all weigh the same together and N in all; one without a
    sample weighs nothing. Raises UsageError if units have no classes, if only reading the data would tell how many
    there are, and for a class that there is not.
    """
    if said is None:
        return None
    if not task.has_classes or task.read is not None:
        raise UsageError(
            f"training.class_weights is for units with classes, and the model predicts {task.predicts}",
            hint="leave it out",
        )
    if said != "balanced":
        return torch.tensor(_by_name(said, source))
    if form_of(form).classed != "sample":
        raise UsageError(
            f"training.class_weights=balanced needs one class a sample, and {source.name} has one for each {task.unit}",
            hint="say the weights by name, by the counts that `spgsurgeon check` gives: training.class_weights="
            "'{NAME: 2.5}'",
        )
    counts = np.bincount(source.labels(), minlength=len(source.classes))  # type: ignore[attr-defined]
    there = counts > 0
    return torch.tensor(np.where(there, counts.sum() / (there.sum() * np.maximum(counts, 1)), 0), dtype=torch.float32)


def _by_name(said: Mapping[str, float], source: Source[Any]) -> list[float]:
    if unknown := [name for name in said if name not in source.classes]:
        raise UsageError(
            f"training.class_weights names {unknown[0]!r}, which is not a class of {source.name}",
            hint=did_you_mean(unknown[0], source.classes),
        )
    return [said.get(name, 1.0) for name in source.classes]
