"""The training loop: the same for every kind of replica and for plain retraining, its control.

An *update* is one optimizer step of the training proper; a *step* counts those of the cold start too. Order and
augmentation of the data are functions of (seed, epoch, sample), dropout and mixing of (seed, step): with the counters
and the tensors of a checkpoint, a resumed run repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import SPGLoss, spg_loss
from spgsurgeon.training.cold_start import (
    Moments,
    check_unchanged,
    drift,
    learning_rate_zero,
    moments_of,
    parameter_hash,
    running_statistics_frozen,
)
from spgsurgeon.training.evaluation import Scores, evaluate
from spgsurgeon.training.interruption import InterruptedRunError, stop_on_signals
from spgsurgeon.training.loader import Batch, EvaluationBatches, TrainingBatches
from spgsurgeon.training.mixing import BatchMixer
from spgsurgeon.training.optimization import (
    learning_rate,
    make_optimizer,
    make_schedule,
    optimizer_state,
    restore_optimizer,
)
from spgsurgeon.training.processes import Processes, autocast, choose_precision
from spgsurgeon.training.run_folder import Checkpoint, RunFolder
from spgsurgeon.training.seeds import derive_seed
from spgsurgeon.training.settings import Settings
from spgsurgeon.training.statistics import EpisodeStatistics
from spgsurgeon.trp.grafted import GraftedModel

METRIC = "top1"


class Progress(Protocol):
    """Who is told how a run goes."""

    def start(self, steps: int, done: int) -> None:
        """A run of at most `steps` steps begins, `done` of them behind it."""

    def advance(self) -> None:
        """A step is done."""

    def epoch(self, metrics: dict[str, Any]) -> None:
        """An epoch is done; `metrics` is its line."""


@dataclass
class Counters:
    """Where a run is. `epoch` counts passes over the data, the cold start's included; `batch` lies within one."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    update: int = 0
    cold_epochs: int = 0
    cold_finished: bool = False
    cold_hash: str | None = None
    original: Scores | None = None
    best: Scores | None = None
    last: Scores | None = None
    statistics: list[list[float]] | None = None


class Retraining:
    """A grafted model, its optimizer and its counters: everything that a step changes."""

    def __init__(
        self,
        grafted: GraftedModel,
        settings: Settings,
        processes: Processes,
        training: TrainingBatches,
        evaluation: EvaluationBatches,
        *,
        num_classes: int,
        cumulative_rates: Sequence[float],
        run: RunFolder | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.grafted = grafted.to(processes.device)
        self.settings, self.processes, self.run_folder, self.progress = settings, processes, run, progress
        self._training, self._evaluation = training, evaluation
        self._rates = cumulative_rates
        self._precision = choose_precision(settings.precision, processes.device)
        self.steps_per_epoch = training.batches_per_epoch // settings.accumulate
        if not self.steps_per_epoch:
            raise UsageError(
                f"an epoch has {training.batches_per_epoch} batches, fewer than accumulate={settings.accumulate}"
            )
        self.optimizer = make_optimizer(grafted, settings.optimizer)
        self.schedule = make_schedule(self.optimizer, settings.schedule, settings.epochs, self.steps_per_epoch)
        self._scaler = torch.amp.GradScaler(processes.device.type, enabled=self._precision == torch.float16)
        self._mixer = BatchMixer(settings.mixup, settings.cutmix, num_classes)
        self.ema = ModelEmaV3(grafted, decay=settings.ema) if settings.ema else None
        self.counters = Counters(cold_finished=settings.cold_start.most_epochs == 0)
        self._moments: Moments | None = None
        self._stop = False
        distributed = DistributedDataParallel(self.grafted) if processes.world_size > 1 else None
        model: nn.Module = distributed or self.grafted
        self._distributed = distributed
        self._model: Any = torch.compile(model) if settings.compile else model

    @property
    def updates(self) -> int:
        """How many updates the training proper has."""
        return self.settings.epochs * self.steps_per_epoch

    def run(self) -> Counters:
        """Train to the end and return the counters, scores included.

        SIGINT and SIGTERM end it after the step, with a checkpoint, by InterruptedRunError.
        """
        counters = self.counters
        cold_steps = (self.settings.cold_start.most_epochs - counters.cold_epochs) * self.steps_per_epoch
        if self.progress:
            total = self.updates + (0 if counters.cold_finished else cold_steps) + counters.step - counters.update
            self.progress.start(total, counters.step)
        with stop_on_signals() as request:
            self._request = request
            if counters.original is None:
                counters.original = self._evaluate(self.grafted)
                if self.run_folder and self.processes.leads:
                    self._save(best=False)  # so that a run killed in its first epoch can resume
            while not counters.cold_finished:
                self._cold_epoch()
            while counters.update < self.updates:
                self._training_epoch()
        return counters

    def try_batch(self) -> SPGLoss:
        """Run the first batch forward, as a step would."""
        self.grafted.train()
        images, labels = next(self._training.epoch(0))
        return self._forward(images, labels, 0)

    def close(self) -> None:
        """End loader workers and close the metrics."""
        self._training.close()
        self._evaluation.close()
        if self.run_folder:
            self.run_folder.close()

    # Epochs

    def _cold_epoch(self) -> None:
        settings, counters = self.settings.cold_start, self.counters
        counters.cold_hash = counters.cold_hash or parameter_hash(self.grafted)
        frozen = running_statistics_frozen(self.grafted, settings.freeze_batch_norm)
        with learning_rate_zero(self.optimizer), frozen:
            metrics = self._epoch("cold")
        after = moments_of(self.optimizer)
        change = drift(self._moments, after) if self._moments else None
        self._moments = after
        counters.cold_epochs += 1
        settled = settings.until_converged and change is not None and change.settled(settings.tolerance)
        counters.cold_finished = settled or counters.cold_epochs >= settings.most_epochs
        if counters.cold_finished:
            check_unchanged(self.grafted, counters.cold_hash)
            self._moments = None
        self._finish_epoch(metrics | {"moments": asdict(change) if change else None, "evaluation": None}, best=False)

    def _training_epoch(self) -> None:
        metrics = self._epoch("train")
        counters = self.counters
        counters.last = self._evaluate(self.ema.module if self.ema else self.grafted)
        better = counters.best is None or counters.last[METRIC] > counters.best[METRIC]
        if better:
            counters.best = counters.last
        self._finish_epoch(metrics | {"evaluation": counters.last}, best=better)

    def _epoch(self, phase: str) -> dict[str, Any]:
        counters, settings = self.counters, self.settings
        statistics = EpisodeStatistics(self.grafted.steps, self.processes, counters.statistics)
        batches = self._training.epoch(counters.epoch, counters.batch)
        started, first = time.perf_counter(), counters.batch
        images = 0
        self.grafted.train()
        while counters.batch < self.steps_per_epoch * settings.accumulate:
            images = self._step(batches, statistics, update=phase == "train")
            counters.batch += settings.accumulate
            self._after_step(statistics)
        summary = statistics.summary(self._rates)  # waits for the device, so it comes before the clock is read
        seconds = time.perf_counter() - started
        seen = (counters.batch - first) * images * self.processes.world_size
        return {
            "epoch": counters.epoch,
            "phase": phase,
            "step": counters.step,
            **summary,
            "learning_rate": learning_rate(self.optimizer),
            "seconds": seconds,
            "images_per_second": seen / seconds,
            "peak_memory_bytes": _peak_memory(self.processes.device),
        }

    def _finish_epoch(self, metrics: dict[str, Any], *, best: bool) -> None:
        self.counters.epoch += 1
        self.counters.batch = 0
        self.counters.statistics = None
        if self.run_folder and self.processes.leads:
            self.run_folder.add_metrics(metrics)
            self._save(best=best)
        if self.progress:
            self.progress.epoch(metrics)
        self.processes.wait()

    # Steps

    def _step(self, batches: Iterator[Batch], statistics: EpisodeStatistics, *, update: bool) -> int:
        """Do one optimizer step over `accumulate` batches; return the number of pictures in the last one."""
        settings, counters = self.settings, self.counters
        if update:
            self.schedule.step_update(counters.update)
        self.optimizer.zero_grad(set_to_none=True)
        size = 0
        for part, (images, labels) in enumerate(islice(batches, settings.accumulate)):
            last = part + 1 == settings.accumulate
            with self._distributed.no_sync() if self._distributed and not last else nullcontext():
                result = self._forward(images, labels, part)
                self._scaler.scale(result.loss / settings.accumulate).backward()
            statistics.add(result)
            size = len(images)
        if settings.gradient_clip is not None:
            self._scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.grafted.parameters(), settings.gradient_clip)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        counters.step += 1
        if update:
            counters.update += 1
            if self.ema:
                self.ema.update(self.grafted)
        return size

    def _forward(self, images: Tensor, labels: Tensor, part: int) -> SPGLoss:
        device, objective = self.processes.device, self.settings.objective
        images, labels = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
        torch.manual_seed(derive_seed(self.settings.seed, "step", self.counters.step, part, self.processes.rank))
        if self._mixer.active:
            images, labels = self._mixer(images, labels)
        with autocast(device, self._precision):
            logits = self._model(images)
        return spg_loss(
            logits,
            labels,
            weights=objective.weights,
            form=objective.form,
            label_smoothing=objective.label_smoothing,
            loss_normalization=objective.loss_normalization,
            mean_over_ranks=self.processes.mean if self.processes.world_size > 1 else None,
        )

    def _after_step(self, statistics: EpisodeStatistics) -> None:
        every = self.settings.checkpoint_steps
        counters = self.counters
        if self.progress:
            self.progress.advance()
        stopping = self._request.number is not None
        due = every is not None and counters.step % every == 0
        if (stopping or due) and self.run_folder and self.processes.leads:
            counters.statistics = statistics.state()
            self._save(best=False)
        if stopping:
            number = self._request.number or 0
            hint = "go on with the same command and --resume" if self.run_folder else None
            raise InterruptedRunError(
                f"stopped by signal {number} after step {counters.step}", hint=hint, number=number
            )

    def _evaluate(self, model: nn.Module) -> Scores:
        self.processes.share_buffers(model)
        return evaluate(model, self._evaluation, self.processes, self._precision)

    # Checkpoints

    def _save(self, *, best: bool) -> None:
        assert self.run_folder is not None
        tensors, numbers = optimizer_state(self.optimizer, self.grafted)
        averaged = self.ema.module.base.state_dict() if self.ema else {}
        state = {"counters": asdict(self.counters), "optimizer": numbers, "scaler": self._scaler.state_dict()}
        if self._moments is not None:
            tensors |= {f"cold::{k}": v for k, v in vars(self._moments).items() if v is not None}
        checkpoint = Checkpoint(
            base=self.grafted.base.state_dict(),
            temporary=self.grafted.replicas.state_dict(),
            optimizer=tensors,
            ema=averaged,
            state=state,
        )
        self.run_folder.save(f"{self.counters.step:08d}", checkpoint, best=best)

    def resume(self) -> bool:
        """Go back to where the run's last checkpoint was; False where it has none."""
        checkpoint = self.run_folder.load() if self.run_folder else None
        if checkpoint is None:
            return False
        assert self.run_folder is not None
        self.grafted.base.load_state_dict(checkpoint.base)
        self.grafted.replicas.load_state_dict(checkpoint.temporary)
        self.counters = Counters(**checkpoint.state["counters"])
        tensors = dict(checkpoint.optimizer)
        cold = {name: tensors.pop(f"cold::{name}", None) for name in ("first", "second")}
        if any(value is not None for value in cold.values()):
            device = self.processes.device
            self._moments = Moments(**{k: None if v is None else v.to(device) for k, v in cold.items()})
        restore_optimizer(self.optimizer, self.grafted, tensors, checkpoint.state["optimizer"])
        self._scaler.load_state_dict(checkpoint.state["scaler"])
        if self.ema:
            # The replicas' average is read by nobody, so only the base's is kept.
            self.ema.module.base.load_state_dict(checkpoint.ema)
        if self.processes.leads:
            self.run_folder.forget_metrics_from(self.counters.epoch)
        return True


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes this process held: on a CUDA device its allocator's, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
