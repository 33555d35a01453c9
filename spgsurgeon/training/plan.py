"""What a run is going to do and need, without doing it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.optimization import learning_rate

_MOST_RATES = 1000


def plan(retraining: Retraining) -> dict[str, Any]:
    """Return steps, the learning rate at each epoch's start, parameter counts and estimated memory (bytes).

    Of very many epochs, the rates are those of some at even distances.

    One batch goes forward to see what a step keeps for its backward pass; the model, its gradients and the optimizer's
    usual two moments are counted from the parameters. Nothing is written.
    """
    recipe, grafted = retraining.recipe, retraining.grafted
    rates = []
    head, cold = (start.most_epochs * retraining.steps_per_epoch for start in (recipe.head_start, recipe.cold_start))
    every = math.ceil(recipe.training.epochs / _MOST_RATES)
    for epoch in range(0, recipe.training.epochs, every):
        retraining.schedule.step_update(epoch * retraining.steps_per_epoch)
        rates.append(learning_rate(retraining.optimizer))
    weights, learning = (
        sum(p.numel() * p.element_size() for p in grafted.parameters() if p.requires_grad or everything)
        for everything in (True, False)
    )
    activations = kept_for_backward(retraining.try_batch, grafted)
    return {
        "steps_per_epoch": retraining.steps_per_epoch,
        "head_start": recipe.head_start.model_dump(mode="json"),
        "head_start_steps": head,
        "cold_start_steps": cold,
        "steps_before": head + cold,
        "steps": retraining.updates + head + cold,
        "learning_rates": rates,
        "epochs_between_learning_rates": every,
        "parameters": sum(p.numel() for p in grafted.base.parameters()),
        "frozen_parameters": sum(p.numel() for p in grafted.base.parameters() if not p.requires_grad),
        "temporary_parameters": sum(p.numel() for p in grafted.replicas.parameters()),
        "estimated_memory_bytes": {
            "weights_gradients_moments": weights + 3 * learning,
            "activations": activations,
            "total": weights + 3 * learning + activations,
        },
    }


def kept_for_backward(forward: Callable[[], object], model: nn.Module) -> int:
    """Return how many bytes the graph of a forward pass keeps, shared memory once and the model's parameters not."""
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors themselves: memory that is given back could be counted twice

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        forward()
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
