"""What a run is going to do and need, without doing it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.optimization import learning_rate


def plan(retraining: Retraining) -> dict[str, Any]:
    """Return steps, the learning rate at each epoch's start, parameter counts and estimated memory (bytes).

    One batch goes forward to see what a step keeps for its backward pass; the model, its gradients and the optimizer's
    usual two moments are counted from the parameters. Nothing is written.
    """
    settings, grafted = retraining.settings, retraining.grafted
    rates = []
    for epoch in range(settings.epochs):
        retraining.schedule.step_update(epoch * retraining.steps_per_epoch)
        rates.append(learning_rate(retraining.optimizer))
    weights = sum(p.numel() * p.element_size() for p in grafted.parameters())
    activations = _saved_for_backward(retraining)
    return {
        "steps_per_epoch": retraining.steps_per_epoch,
        "cold_start_steps": settings.cold_start.most_epochs * retraining.steps_per_epoch,
        "steps": retraining.updates + settings.cold_start.most_epochs * retraining.steps_per_epoch,
        "learning_rates": rates,
        "parameters": sum(p.numel() for p in grafted.base.parameters()),
        "temporary_parameters": sum(p.numel() for p in grafted.replicas.parameters()),
        "estimated_memory_bytes": {
            "weights_gradients_moments": 4 * weights,
            "activations": activations,
            "total": 4 * weights + activations,
        },
    }


def _saved_for_backward(retraining: Retraining) -> int:
    """Return how many bytes one batch's graph keeps, counting shared memory once and parameters not at all."""
    parameters = {p.untyped_storage().data_ptr() for p in retraining.grafted.parameters()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        retraining.try_batch()
    return sum(kept.values())
