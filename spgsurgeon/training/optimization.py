"""Optimizers and learning-rate schedules, timm's; and an optimizer's state as tensors and numbers, without pickles."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim import create_optimizer_v2, list_optimizers, param_groups_weight_decay
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor

from spgsurgeon.errors import DamagedFileError, UsageError, did_you_mean
from spgsurgeon.training.settings import Optimizer, Schedule
from spgsurgeon.trp.grafted import GraftedModel

_SEPARATOR = "::"


def make_optimizer(grafted: GraftedModel, settings: Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer over the base's and the replicas' parameters. Raises UsageError for an unknown name."""
    name = settings.name.lower()
    if name == "sgd":  # timm's own `sgd` is Nesterov's
        name = "nesterov" if settings.nesterov else "momentum"
    known = [str(n) for n in list_optimizers()]
    if name not in known:
        raise UsageError(f"unknown optimizer {settings.name!r}", hint=did_you_mean(name, known))
    if settings.decay_bias_and_norm:
        groups: Any = [{"params": [p for p in grafted.parameters() if p.requires_grad]}]
    else:
        # timm's models name what must not decay beyond biases and norms, position embeddings for one.
        spared: Iterable[str] = getattr(grafted.base, "no_weight_decay", set)()
        groups = param_groups_weight_decay(
            grafted, settings.weight_decay, no_weight_decay_list=[f"base.{key}" for key in spared]
        )
    return create_optimizer_v2(
        groups, opt=name, lr=settings.lr, weight_decay=settings.weight_decay, momentum=settings.momentum
    )


def make_schedule(optimizer: torch.optim.Optimizer, settings: Schedule, epochs: int, steps_per_epoch: int) -> Scheduler:
    """Return the schedule: `step_update(k)` sets the learning rate of step k, whatever came before."""
    names = {"linear": "poly", "constant": "step"}
    decay = {"step": settings.gamma, "constant": 1.0, "poly": settings.power, "linear": 1.0}
    schedule: Scheduler = create_scheduler_v2(
        optimizer,
        sched=names.get(settings.name, settings.name),
        num_epochs=epochs,
        decay_epochs=settings.every,
        decay_rate=decay.get(settings.name, 1.0),
        min_lr=settings.min_lr,
        warmup_lr=0.0,
        warmup_epochs=settings.warmup_epochs,
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )[0]
    return schedule


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the first parameter group."""
    return float(optimizer.param_groups[0]["lr"])


def optimizer_state(
    optimizer: torch.optim.Optimizer, grafted: GraftedModel
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors keyed `parameter::entry`, and its numbers as plain data."""
    names: dict[Tensor, str] = {parameter: name for name, parameter in grafted.named_parameters()}
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for parameter, entries in optimizer.state.items():
        for entry, value in entries.items():
            key = f"{names[parameter]}{_SEPARATOR}{entry}"
            if isinstance(value, Tensor):
                tensors[key] = value
            elif value is not None:
                numbers[key] = value
    groups = [
        {key: value for key, value in group.items() if isinstance(value, (bool, int, float, str))}
        for group in optimizer.param_groups
    ]
    return tensors, {"state": numbers, "groups": groups}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, grafted: GraftedModel, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    """Put back what `optimizer_state` returned. Raises DamagedFileError where it is of another optimizer or model."""
    parameters = dict(grafted.named_parameters())
    state: dict[str, dict[str, Any]] = {}
    for key, value in {**tensors, **numbers["state"]}.items():
        name, _, entry = key.partition(_SEPARATOR)
        state.setdefault(name, {})[entry] = value
    if unknown := [name for name in state if name not in parameters]:
        raise DamagedFileError(f"the optimizer's state is of another model: it knows {unknown[0]!r}")
    index = {parameter: i for i, parameter in enumerate(p for g in optimizer.param_groups for p in g["params"])}
    document = optimizer.state_dict()
    if len(document["param_groups"]) != len(numbers["groups"]):
        raise DamagedFileError("the optimizer's state is of another optimizer")
    # load_state_dict moves each tensor to its parameter's device and knows which entries (`step`) stay on the CPU.
    document["state"] = {index[parameters[name]]: entries for name, entries in state.items()}
    for group, saved in zip(document["param_groups"], numbers["groups"], strict=True):
        group.update(saved)
    optimizer.load_state_dict(document)
