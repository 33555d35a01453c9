"""One optimizer step: forward, loss, backward, update. Dropout and mixing are functions of (seed, step)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import prod
from typing import Any

import torch
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spgsurgeon.data import LABELLED, Batch, BatchMixer, Transfer
from spgsurgeon.errors import UsageError
from spgsurgeon.models import IMAGES, has_resting_parameters
from spgsurgeon.objective import SPGLoss, Weights, divergence, loss_of_readout, shape_of, spg_loss
from spgsurgeon.recipe import Recipe
from spgsurgeon.replicas import GraftedModel, joined
from spgsurgeon.runtime import Processes, autocast, choose_memory_format, derive_seed, laid_out, seed_generators
from spgsurgeon.tasks import Task
from spgsurgeon.training.prediction import Logits, logits_of
from spgsurgeon.training.soundness.number_guard import NumberGuard
from spgsurgeon.training.state import TrainingState
from spgsurgeon.training.statistics import EpisodeStatistics

_Result = tuple[SPGLoss, Batch, Tensor]
"""What a batch gave: its loss, itself as the model saw it, and its targets before they were mixed."""


class Stepper:
    """Takes the steps of a run, on this process's part of the joined batches, and counts them in `state.counters`."""

    def __init__(
        self,
        state: TrainingState,
        schedule: Scheduler,
        recipe: Recipe,
        task: Task,
        processes: Processes,
        *,
        num_classes: int,
        precision: torch.dtype,
        class_weights: Tensor | None = None,
    ) -> None:
        settings = recipe.training
        self._state, self._schedule, self._processes = state, schedule, processes
        self._settings, self._objective = settings, recipe.objective
        self._weights = _weights(recipe, state.grafted.shape)
        _check_mesh(state.grafted.shape, task)
        self._precision = precision
        self._transfer = Transfer(processes.device)
        self._memory_format = choose_memory_format(settings.memory_format, processes.device, state.grafted)
        self._task = task
        self._class_weights = None if class_weights is None else class_weights.to(processes.device)
        self._mixer = _make_mixer(recipe, task, num_classes)
        _check_r_drop(recipe, task)
        self.plain = False
        """Whether steps have no episodes, as those of a head start: the base alone learns."""
        self._wrap()
        self._guard = NumberGuard(state, processes, policy=settings.non_finite, most_skips=settings.max_skips)

    @contextmanager
    def plainly(self, learning: AbstractContextManager[None]) -> Iterator[None]:
        """Take plain steps inside the block; `learning` lets other parameters learn in it than outside."""
        with learning:
            self.plain = True
            self._wrap()
            try:
                yield
            finally:
                self.plain = False
        self._wrap()

    def _wrap(self) -> None:
        """Wrap the model for what learns now: the wrapper of several processes must know it."""
        self._distributed: DistributedDataParallel | None = None
        self._model: Any = None
        if self._processes.world_size > 1:
            gc.collect()  # ends an earlier wrapper, whose hooks would wait for other gradients
            self._distributed = _distributed(self._state.grafted)
        model: nn.Module = self._distributed or self._state.grafted
        self._model = torch.compile(model) if self._settings.compile else model

    def accumulate(self, parts: list[Batch], divisors: Sequence[float] | None = None) -> list[_Result]:
        """Make the gradient of one step from its batches; return what each of them gave, on the device.

        `divisors` are what their losses are divided by; left out, all batches count the same.
        """
        self._state.optimizer.zero_grad(set_to_none=True)
        self._guard.before_step()
        results = []
        divisors = divisors or [len(parts)] * len(parts)
        for part, batch in enumerate(parts):
            last = part + 1 == len(parts)
            batch = self._transfer(batch)
            with self._distributed.no_sync() if self._distributed and not last else nullcontext():
                result, seen = self.forward(batch, part)
                self._state.scaler.scale(result.loss / divisors[part]).backward()
            results.append((result, seen, batch.targets))
        return results

    def apply(self, results: list[_Result], statistics: EpisodeStatistics, *, update: bool) -> None:
        """Do the step with the gradient that `accumulate` made; it `update`s the average and is one of the schedule.

        Raises NonFiniteError if this step or the one before met NaN or infinity and the policy is to stop.
        """
        state, clip = self._state, self._settings.gradient_clip
        if update:
            self._schedule.step_update(state.counters.update)
        if clip is not None:
            state.scaler.unscale_(state.optimizer)
        skipped = self._guard.check([result.loss for result, *_ in results])
        if clip is not None:
            nn.utils.clip_grad_norm_(state.grafted.parameters(), clip)
        self._guard.step(skipped)
        class_of = self._task.episode_classes
        for result, batch, own in results:
            statistics.add(result, batch._replace(targets=class_of(batch.targets)), skipped, class_of(own))
        state.counters.step += 1
        if update:
            state.counters.update += 1
            if state.ema:
                state.ema.update(state.grafted)

    def forward(self, batch: Batch, part: int = 0) -> tuple[SPGLoss, Batch]:
        """Return the loss of the step's batch number `part`, and the batch as the model saw it, on the device."""
        device, objective = self._processes.device, self._objective
        batch = self._transfer(batch)
        seed = derive_seed(self._settings.seed, "step", self._state.counters.step, part, self._processes.rank)
        seed_generators(seed, device)
        if self._mixer.active:
            images, targets = self._mixer(batch.inputs[IMAGES], batch.targets)
            batch = Batch(batch.inputs | {IMAGES: images}, targets, batch.samples)
        r_drop = 0.0 if self.plain else objective.r_drop
        if r_drop:
            batch = _twice(batch)
        mean_over_ranks = self._processes.mean if self._processes.world_size > 1 else None
        with autocast(device, self._precision):
            inputs = laid_out(batch.inputs, self._memory_format)
            logits = logits_of(self._task, self._model, inputs, base=self._state.grafted.base, output=joined)
            result = self._loss(logits, batch.targets, mean_over_ranks)  # of logits that are made there
        if r_drop:
            assert isinstance(logits, Tensor)
            apart = divergence(logits, batch.targets.chunk(2)[0], mean_over_ranks=mean_over_ranks)
            result = result._replace(loss=result.loss + r_drop * apart)
        return result, batch

    def _loss(self, logits: Logits, targets: Tensor, mean_over_ranks: Callable[[Tensor], Tensor] | None) -> SPGLoss:
        """Return the loss of a batch by the logits of its steps, read as the task says."""
        objective, read = self._objective, self._task.read
        weights: Weights = () if self.plain else self._weights
        how: dict[str, Any] = {
            "weights": weights,
            "form": objective.form,
            "loss_normalization": objective.loss_normalization,
            "mean_over_ranks": mean_over_ranks,
        }
        if not self.plain:
            how |= {"gce": objective.gce, "small_loss": objective.small_loss}
        smoothing = objective.label_smoothing
        if read is not None:
            return loss_of_readout(read(logits, targets, prod(shape_of(weights)), smoothing), **how)
        assert isinstance(logits, Tensor)
        how |= {"soft": self._mixer.active, "class_weights": self._class_weights}
        result = spg_loss(logits, targets, label_smoothing=smoothing, class_dim=1, **how)
        return result._replace(predicted=None) if self._mixer.active else result  # of a mixture, which is nobody's own

    def settle(self) -> None:
        """Wait for the last step, so that all of them are known to be sound. Raises as `apply` does."""
        self._guard.settle_all()


def _distributed(grafted: GraftedModel) -> DistributedDataParallel:
    return DistributedDataParallel(grafted, find_unused_parameters=has_resting_parameters(grafted.base))


def _twice(batch: Batch) -> Batch:
    """Return a batch with each sample twice, in two halves."""
    inputs = {name: torch.cat([value, value]) for name, value in batch.inputs.items()}
    return Batch(inputs, torch.cat([batch.targets] * 2), torch.cat([batch.samples] * 2))


def _weights(recipe: Recipe, shape: Sequence[int]) -> Weights:
    """Return the weight of each replica by axis; a control has none, whatever the recipe says of replicas."""
    replicas = max(shape) - 1
    weights = recipe.objective.weights if replicas else ()
    if len(weights) != replicas:
        raise UsageError(f"objective.weights has {len(weights)} entries for {replicas} replicas")
    return weights if len(shape) == 1 else tuple(weights[: steps - 1] for steps in shape)


def _check_mesh(shape: Sequence[int], task: Task) -> None:
    """Raise UsageError for a mesh whose logits are never there all at once: those are read along one axis."""
    if len(shape) > 1 and task.deferred:
        raise UsageError(
            f"a model that predicts {task.predicts} has too many logits to exist at once, and they are read along one "
            "chain of replicas, not over a mesh",
            hint="leave one axis: its kind is trp.kind then",
            code="mesh-needs-logits",
        )


def _check_r_drop(recipe: Recipe, task: Task) -> None:
    """Raise UsageError for R-Drop of a task whose logits are never there all at once."""
    if recipe.objective.r_drop and task.deferred:
        raise UsageError(
            f"objective.r_drop compares all logits of two passes, and those of a model that predicts {task.predicts} "
            "are too many to exist at once",
            hint="leave objective.r_drop out",
            code="r-drop-needs-logits",
        )


def _make_mixer(recipe: Recipe, task: Task, num_classes: int) -> BatchMixer:
    """Return what the recipe asks for. Raises UsageError if samples can't be mixed, or the objective needs labels."""
    mixer = BatchMixer(recipe.data.augment.mixup, recipe.data.augment.cutmix, num_classes)
    if mixer.active and recipe.objective.r_drop:
        raise UsageError(
            "objective.r_drop needs labels, and mixup and cutmix mix them",
            hint="leave data.augment.mixup and data.augment.cutmix at 0, or objective.r_drop out",
        )
    if mixer.active and recipe.objective.gce:
        raise UsageError(
            "objective.gce needs labels, and mixup and cutmix mix them",
            hint="leave data.augment.mixup and data.augment.cutmix at 0, or objective.gce out",
            code="gce-needs-labels",
        )
    if mixer.active and not task.mixes:
        raise UsageError(
            f"mixup and cutmix mix {LABELLED}, and the model predicts {task.predicts}",
            hint="leave data.augment.mixup and data.augment.cutmix at 0",
        )
    return mixer
