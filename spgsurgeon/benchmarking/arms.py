"""What a measurement compares: one model in training, by the product's own step with other settings, or by timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3, NativeScaler, dispatch_clip_grad
from torch import Tensor, nn

from spgsurgeon.benchmarking.blocks import Seconds
from spgsurgeon.data import LABELLED, Batch
from spgsurgeon.errors import SurgeonError, UsageError, did_you_mean
from spgsurgeon.models import call
from spgsurgeon.recipe import OptimizerSection, Recipe
from spgsurgeon.replicas import detach, kinds
from spgsurgeon.runtime import (
    Processes,
    autocast,
    choose_memory_format,
    choose_precision,
    deterministic_algorithms,
    laid_out,
)
from spgsurgeon.tasks import Task
from spgsurgeon.training import Case, EpisodeStatistics, Retraining, make_schedule

PLAIN: str = "plain"
GRAFTED: str = "grafted"
TIMM: str = "timm"
TRAINER: str = "trainer"
CHANGES: dict[str, tuple[str, ...]] = {
    PLAIN: (f"trp={{kind: {kinds.PLAIN}}}",),
    GRAFTED: (),
    "sequential": ("trp.head_batch=sequential",),
    "rollouts": ("trp.rollouts=true",),
    "deterministic": ("training.deterministic=true", "training.cudnn_benchmark=false"),
    TIMM: (f"trp={{kind: {kinds.PLAIN}}}",),
    TRAINER: (f"trp={{kind: {kinds.PLAIN}}}",),
}
"""The arms, each with what it changes in the recipe; the last two are the plain step as timm's training script and
transformers' Trainer take it."""


@dataclass(frozen=True)
class Arm:
    """One way to take training steps: each call of `step` takes one, on batches that lie on the device.

    `forward` runs a step's forward passes and returns what holds their graph. `replicas` are the temporary modules.
    """

    name: str
    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: Callable[[], None]
    forward: Callable[[], object]
    device: torch.device
    replicas: nn.Module | None = None
    average: nn.Module | None = None
    deterministic: bool = False
    compiled: bool = False

    def run(self, steps: int) -> None:
        """Take steps and wait for the device. Raises SurgeonError if they don't fit in its memory."""
        with deterministic_algorithms(self.deterministic), says_what_does_not_fit(self.name):
            for _ in range(steps):
                self.step()
            wait_for(self.device)

    def seconds(self, steps: int) -> Seconds:
        """Take steps, wait for the device, and return how long that took."""
        started = Seconds.now()
        self.run(steps)
        return Seconds.now().since(started)

    def held_bytes(self) -> int:
        """Return what it holds between steps: weights, statistics, the optimizer's state and the moving average."""
        tensors = [*self.model.parameters(), *self.model.buffers(), *self._state(self.model)]
        if self.average is not None:
            tensors += [*self.average.parameters(), *self.average.buffers()]
        return _bytes(tensors)

    def replica_bytes(self) -> int:
        """Return what of a step's memory is the replicas' own: weights, gradients, buffers, optimizer's state."""
        if self.replicas is None:
            return 0
        weights = list(self.replicas.parameters())
        return _bytes(weights) * 2 + _bytes([*self.replicas.buffers(), *self._state(self.replicas)])

    def _state(self, module: nn.Module) -> list[Tensor]:
        states = [self.optimizer.state[p] for p in module.parameters() if p in self.optimizer.state]
        return [value for state in states for value in state.values() if isinstance(value, Tensor)]


def settle_arms(names: Sequence[str]) -> list[str]:
    """Return the arms in the order in which they are shown; `plain` and `grafted` are there in any case.

    Raises UsageError for names that are unknown.
    """
    for name in names:
        if name not in CHANGES:
            hint = did_you_mean(name, CHANGES) or f"there are {', '.join(CHANGES)}"
            raise UsageError(f"there is no arm {name!r}", hint=hint)
    return [name for name in CHANGES if name in (PLAIN, GRAFTED, *names)]


def check_arm(name: str, recipe: Recipe, task: Task) -> None:
    """Raise UsageError for timm's step where it has no counterpart of what the recipe or the model needs."""
    augment = recipe.data.augment
    if name != TIMM:
        return
    if task.samples != LABELLED:
        raise UsageError(
            f"arm {TIMM} is for {LABELLED}, and the model predicts {task.predicts}", hint="leave it out of --arms"
        )
    if augment.mixup or augment.cutmix:
        raise UsageError(f"arm {TIMM} mixes no images here", hint="data.augment.mixup=0 data.augment.cutmix=0")


def own_arm(name: str, retraining: Retraining, parts: list[Batch], *, deterministic: bool) -> Arm:
    """Return the product's own step, optimizer and number guard, as `train` makes them.

    `parts` are the batches of each step, on the device.
    """
    retraining.enter_training()
    grafted, average = retraining.grafted, retraining.state.ema
    statistics = EpisodeStatistics(grafted.steps, len(retraining.batches.source.classes), retraining.processes)
    return Arm(
        name,
        grafted,
        retraining.optimizer,
        step=lambda: retraining.take_step(parts, statistics),
        forward=lambda: retraining.try_batch(parts[0]),
        device=retraining.processes.device,
        replicas=grafted.replicas,
        average=average.module if average else None,
        deterministic=deterministic,
        compiled=retraining.settings.compile,
    )


def wait_for(device: torch.device) -> None:
    """Return once the device has done what it was given; the CPU always has."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


@contextmanager
def says_what_does_not_fit(arm: str) -> Iterator[None]:
    """Turn an accelerator's running out of memory into a SurgeonError that names the arm."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise SurgeonError(
            f"out of memory in arm {arm}; each arm holds a model of its own",
            hint="a smaller --batch-size or --image-size, or fewer --arms",
        ) from error


def timm_arm(case: Case, processes: Processes, parts: list[Batch]) -> Arm:
    """Return the plain step of timm's training script, by timm's own parts, without its reading each loss.

    `case` is of a model without replicas, and can't be trained otherwise after that.
    """
    device, training = processes.device, case.recipe.training
    smoothing = case.recipe.objective.label_smoothing
    layout = choose_memory_format(training.memory_format, device, case.grafted)
    base = detach(case.grafted).to(device).train().to(memory_format=layout)  # as with its --channels-last
    optimizer = _timm_optimizer(base, training.optimizer)
    schedule = make_schedule(optimizer, training.schedule, training.epochs, len(case.data.train) // training.batch_size)
    precision = choose_precision(training.precision, device)
    scaler = NativeScaler(device.type) if precision == torch.float16 else None
    average = ModelEmaV3(base, decay=training.ema) if training.ema else None
    criterion = LabelSmoothingCrossEntropy(smoothing) if smoothing else nn.CrossEntropyLoss()
    model: Any = torch.compile(base) if training.compile else base
    updates = 0

    def loss_of(part: Batch) -> Any:
        with autocast(device, precision):
            output = call(model, laid_out(part.inputs, layout))
            if not isinstance(output, Tensor):
                raise UsageError(f"arm {TIMM} is for models with one output in train mode")
            return criterion(output, part.targets) / len(parts)

    def step() -> None:
        nonlocal updates
        for number, part in enumerate(parts, start=1):
            loss, last = loss_of(part), number == len(parts)
            if scaler is not None:
                clip, weights = training.gradient_clip, base.parameters()
                scaler(loss, optimizer, clip_grad=clip, parameters=weights, need_update=last)
                continue
            loss.backward()
            if last:
                if training.gradient_clip is not None:
                    dispatch_clip_grad(base.parameters(), training.gradient_clip)
                optimizer.step()
        optimizer.zero_grad()
        updates += 1
        if average is not None:
            average.update(base)
        schedule.step_update(updates)

    average_module = average.module if average else None
    return Arm(
        TIMM,
        base,
        optimizer,
        step,
        lambda: loss_of(parts[0]),
        device,
        average=average_module,
        compiled=training.compile,
    )


def _timm_optimizer(base: nn.Module, wanted: OptimizerSection) -> torch.optim.Optimizer:
    """Return the optimizer that timm makes of these settings; it has two names for SGD."""
    sgd = "nesterov" if wanted.nesterov else "momentum"
    return create_optimizer_v2(
        base,
        opt=sgd if wanted.name.lower() == "sgd" else wanted.name,
        lr=wanted.lr,
        weight_decay=wanted.weight_decay,
        momentum=wanted.momentum,
        filter_bias_and_bn=not wanted.decay_bias_and_norm,
    )


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Return the memory behind the tensors, what several share once."""
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())
