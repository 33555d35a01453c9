"""What a model gives for a batch, as its task reads it: logits or, where these are too many, what they are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from spgsurgeon.models import call, head_deferred
from spgsurgeon.objective import DeferredLogits
from spgsurgeon.tasks import Task

Logits = Tensor | DeferredLogits


def logits_of(
    task: Task, model: nn.Module, inputs: Mapping[str, Tensor], *, base: nn.Module, output: Callable[[Any], Tensor]
) -> Logits:
    """Return the logits of a batch, [rows, C, ...], or deferred ones if the task asks for these.

    `output` takes them out of what `model` gives, which is `base` or holds it. Deferred ones are made by whoever reads
    them, under the autocast that is on there.
    """
    if not task.deferred:
        return task.readout(output(call(model, inputs)))
    with head_deferred(base) as head:
        return DeferredLogits(output(call(model, inputs)), head)
