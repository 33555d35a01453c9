"""Optimizers and learning-rate schedules, timm's; and an optimizer's state as tensors and numbers, without pickles."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from timm.optim import create_optimizer_v2, get_optimizer_info, list_optimizers
from timm.scheduler import create_scheduler_v2
from timm.scheduler.scheduler import Scheduler
from torch import Tensor

from spgsurgeon.checkpoint import MalformedError
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.recipe import OptimizerSection, ScheduleSection
from spgsurgeon.replicas import GraftedModel
from spgsurgeon.runtime import laid_out_like
from spgsurgeon.training.weights.groups import SCALE, parameter_groups

_SEPARATOR = "::"
_UNUSABLE = {"kron": "its preconditioners and their random numbers can't be saved, so a run could not be resumed"}


def make_optimizer(
    grafted: GraftedModel, settings: OptimizerSection, head: Collection[str] | None = None
) -> torch.optim.Optimizer:
    """Return the optimizer over the base's and the replicas' parameters, in the groups of `parameter_groups`.

    Raises UsageError for a name that is unknown, or of an optimizer that can't be used here.
    """
    name = settings.name.lower()
    if name == "sgd":  # timm's own `sgd` is Nesterov's
        name = "nesterov" if settings.nesterov else "momentum"
    _check_usable(name)
    options: dict[str, Any] = {"fused": True} if _can_be_fused(name) else {}
    try:
        optimizer = create_optimizer_v2(
            parameter_groups(grafted, settings, head),
            opt=name,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            momentum=settings.momentum,
            **options,
        )
    except (AssertionError, ImportError) as error:  # timm asserts what some optimizers need: a GPU, another package
        raise UsageError(f"optimizer {settings.name!r} can't be used here: {error}") from error
    if isinstance(optimizer, torch.optim.SGD) and settings.momentum:
        # A first step that torch's fused SGD leaves out would leave it a momentum of uninitialised memory.
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _can_be_fused(name: str) -> bool:
    """Return whether it is one of torch's that update all weights at once and take `found_inf`, see `number_guard`."""
    return get_optimizer_info(name).opt_class in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW)


def _check_usable(name: str) -> None:
    known = [str(n) for n in list_optimizers()]
    if name not in known:
        raise UsageError(f"unknown optimizer {name!r}", hint=did_you_mean(name, known))
    info = get_optimizer_info(name)
    reason = "it needs second derivatives" if info.second_order else _UNUSABLE.get(name[:4])
    if reason:
        raise UsageError(f"optimizer {name!r} can't be used: {reason}", hint="take another one, such as adamw or lamb")


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: ScheduleSection, epochs: int, steps_per_epoch: int
) -> Scheduler:
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
        warmup_epochs=settings.warmup_epochs,  # type: ignore[arg-type]  # is multiplied by the updates of an epoch
        step_on_epochs=False,
        updates_per_epoch=steps_per_epoch,
    )[0]
    return schedule


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """Return the learning rate of the first parameter group, before its own scale."""
    first = optimizer.param_groups[0]
    return float(first["lr"] / first.get(SCALE, 1.0))


def optimizer_state(
    optimizer: torch.optim.Optimizer, grafted: GraftedModel
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return an optimizer's state as tensors keyed `parameter::entry` or `group::entry`, and its numbers as plain data.

    Groups go by their number. What is neither tensor nor number, such as a tuple of betas, is a setting, not state.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in grafted.named_parameters()}
    state = {names[parameter]: entries for parameter, entries in optimizer.state.items()}
    groups = {str(number): group for number, group in enumerate(optimizer.param_groups)}
    tensors = {
        f"{owner}{_SEPARATOR}{entry}": value
        for owner, entries in (state | groups).items()
        for entry, value in entries.items()
        if isinstance(value, Tensor)
    }
    return tensors, {"state": _numbers(state), "groups": list(_numbers(groups).values())}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, grafted: GraftedModel, tensors: dict[str, Tensor], numbers: dict[str, Any]
) -> None:
    """Put back what `optimizer_state` returned. Raises MalformedError if it is of another optimizer or model."""
    document = optimizer.state_dict()
    _check_groups(document["param_groups"], numbers["groups"])
    named = dict(grafted.named_parameters())
    names = {parameter: name for name, parameter in named.items()}
    parameters = [names[parameter] for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[str, dict[str, Any]] = {name: dict(own) for name, own in numbers["state"].items()}
    entries |= {str(number): dict(own) for number, own in enumerate(numbers["groups"])}
    for key, value in tensors.items():
        owner, _, entry = key.partition(_SEPARATOR)
        # Updates of many weights at once go through both in the order of the memory.
        entries.setdefault(owner, {})[entry] = laid_out_like(value, named[owner]) if owner in named else value
    for number, group in enumerate(document["param_groups"]):
        group.update(entries.pop(str(number)))
    if unknown := sorted(entries.keys() - set(parameters)):
        raise MalformedError(f"the optimizer's state is of another model: it knows {unknown[0]!r}")
    # load_state_dict moves each tensor to its parameter's device and knows which entries (`step`) stay on the CPU.
    document["state"] = {index: entries[name] for index, name in enumerate(parameters) if name in entries}
    optimizer.load_state_dict(document)


def _check_groups(own: Sequence[Mapping[str, Any]], given: Sequence[Mapping[str, Any]]) -> None:
    """Raise MalformedError unless the numbers of groups are by name and type those that this optimizer has."""
    if len(own) != len(given):
        raise MalformedError("the optimizer's state is of another optimizer")
    for number, (group, numbers) in enumerate(zip(own, given, strict=True)):
        for name, value in numbers.items():
            kind = type(group.get(name, 0))  # some optimizers count in their groups, from their first step on
            if type(value) not in ((int, float) if kind in (int, float) else (kind,)):
                raise MalformedError(f"optimizer.groups.{number}.{name} is {value!a:.60}, not a {kind.__name__}")


def _numbers(owners: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        owner: {entry: value for entry, value in entries.items() if isinstance(value, (bool, int, float, str))}
        for owner, entries in owners.items()
    }
