"""How much units count in the loss by their class, as a recipe says it.

Shapes: C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spgsurgeon.data import Source, count_units, form_of
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.runtime import Processes, default_workers
from spgsurgeon.tasks import Task

Weights = Literal["balanced"] | Sequence[float] | Mapping[str, float] | None
_LISTED = 8


def class_weights(
    said: Weights,
    source: Source[Any],
    form: str,
    task: Task,
    processes: Processes,
    tell: Callable[[str], None] = lambda text: None,
) -> Tensor | None:
    """Return the weights of the classes, float32 [C], of the training data, which is of this `form`; None for none.

    Balanced, a class weighs N / (C * its units), so that all weigh the same together and N in all; one without a unit
    weighs nothing. Where a sample has many units, as an image has pixels, all samples are read for it, each process its
    share, and `tell` hears so and what was found. All processes must call it. Raises UsageError if units have no
    classes, for a class that there is not, and for another number of weights than of classes.
    """
    if said is None:
        return None
    if not task.has_classes or task.read is not None:
        raise UsageError(
            f"training.class_weights is for units with classes, and the model predicts {task.predicts}",
            hint="leave it out",
        )
    if said != "balanced":
        return torch.tensor(_by_name(said, source) if isinstance(said, Mapping) else _in_order(said, source))
    if form_of(form).classed == "sample":
        return _balanced(np.bincount(source.labels(), minlength=len(source.classes)))  # type: ignore[attr-defined]
    tell(f"counting the {task.unit}s of each class in {len(source):,} samples (training.class_weights=balanced)")
    share = range(processes.rank, len(source), processes.world_size)
    own = torch.from_numpy(count_units(source, share, default_workers())).to(processes.device)
    counts = processes.sum(own).cpu().numpy()
    weights = _balanced(counts)
    tell(_said_of(counts, weights, source, task))
    return weights


def _balanced(counts: NDArray[Any]) -> Tensor:
    there = counts > 0
    weights = np.where(there, counts.sum() / (max(there.sum(), 1) * np.maximum(counts, 1)), 0)
    return torch.tensor(weights, dtype=torch.float32)


def _said_of(counts: NDArray[Any], weights: Tensor, source: Source[Any], task: Task) -> str:
    """Return what was counted and what classes weigh by it, the heaviest first; those without a unit come last."""
    order = sorted(range(len(counts)), key=lambda label: (counts[label] == 0, counts[label]))
    each = [f"{source.classes[label]} {weights[label]:.4g} ({counts[label]:,} {task.unit}s)" for label in order]
    more = f" and {len(each) - _LISTED} more" if len(each) > _LISTED else ""
    return f"classes weigh, by {counts.sum():,} {task.unit}s: {', '.join(each[:_LISTED])}{more}"


def _in_order(said: Sequence[float], source: Source[Any]) -> list[float]:
    if len(said) != len(source.classes):
        raise UsageError(
            f"training.class_weights lists {len(said)} weights, and {source.name} has {len(source.classes)} classes",
            hint=f"one for each, in this order: {', '.join(source.classes[:_LISTED])}"
            + (", ..." if len(source.classes) > _LISTED else ""),
        )
    return list(said)


def _by_name(said: Mapping[str, float], source: Source[Any]) -> list[float]:
    if unknown := [name for name in said if name not in source.classes]:
        raise UsageError(
            f"training.class_weights names {unknown[0]!r}, which is not a class of {source.name}",
            hint=did_you_mean(unknown[0], source.classes),
        )
    return [said.get(name, 1.0) for name in source.classes]
