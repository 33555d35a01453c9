"""The training loop: the same for every kind of replica and for plain retraining, its control.

An *update* is one optimizer step of the training proper; a *step* counts those of the cold start too. Order and
augmentation of the data are functions of (seed, epoch, sample), dropout and mixing of (seed, step): with the counters
and the tensors of a checkpoint, a resumed run repeats an uninterrupted one bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from typing import Any, NoReturn

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.objective.loss import SPGLoss, spg_loss
from spgsurgeon.training.cold_start import (
    check_unchanged,
    drift,
    learning_rate_zero,
    moments_of,
    parameter_hash,
)
from spgsurgeon.training.evaluation import evaluate
from spgsurgeon.training.interruption import InterruptedRunError, StopRequest, stop_on_signals
from spgsurgeon.training.loader import Batch, EvaluationBatches, TrainingBatches
from spgsurgeon.training.mixing import make_mixer
from spgsurgeon.training.optimization import learning_rate, make_optimizer, make_schedule
from spgsurgeon.training.processes import Processes, autocast, choose_precision, peak_memory
from spgsurgeon.training.progress import Progress
from spgsurgeon.training.run_folder import RunFolder
from spgsurgeon.training.scoring import METRIC, Scores
from spgsurgeon.training.seeds import derive_seed
from spgsurgeon.training.settings import Settings
from spgsurgeon.training.state import Counters, TrainingState
from spgsurgeon.training.statistics import EpisodeStatistics, summarize
from spgsurgeon.trp.grafted import GraftedModel
from spgsurgeon.trp.stacking import running_statistics_kept


class Retraining:
    """One retraining from its first step, or from its last checkpoint, to its end.

    Without a `run` folder nothing is written. `step_labels` has one entry a step (T+1); see `summarize`.
    """

    def __init__(
        self,
        grafted: GraftedModel,
        settings: Settings,
        processes: Processes,
        training: TrainingBatches,
        evaluation: EvaluationBatches,
        *,
        num_classes: int,
        step_labels: Sequence[str],
        run: RunFolder | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.steps_per_epoch = training.batches_per_epoch // settings.accumulate
        if not self.steps_per_epoch:
            raise UsageError(
                f"an epoch has {training.batches_per_epoch} batches, fewer than accumulate={settings.accumulate}",
                hint="lower training.accumulate or training.batch_size",
            )
        self.grafted = grafted.to(processes.device)
        self.settings, self.processes, self.run_folder, self.progress = settings, processes, run, progress
        self._training, self._evaluation, self._labels = training, evaluation, step_labels
        self._precision = choose_precision(settings.precision, processes.device)
        self._mixer = make_mixer(settings, num_classes)
        self._stop = StopRequest()
        self.optimizer = make_optimizer(grafted, settings.optimizer)
        self.schedule = make_schedule(self.optimizer, settings.schedule, settings.epochs, self.steps_per_epoch)
        self.state = TrainingState(
            self.grafted,
            self.optimizer,
            scaler=torch.amp.GradScaler(processes.device.type, enabled=self._precision == torch.float16),
            ema=ModelEmaV3(grafted, decay=settings.ema) if settings.ema else None,
            counters=Counters(cold_finished=settings.cold_start.most_epochs == 0),
        )
        self._distributed = DistributedDataParallel(self.grafted) if processes.world_size > 1 else None
        model: nn.Module = self._distributed or self.grafted
        self._model: Any = torch.compile(model) if settings.compile else model

    @property
    def counters(self) -> Counters:
        """Where the run is."""
        return self.state.counters

    @property
    def updates(self) -> int:
        """How many updates the training proper has."""
        return self.settings.epochs * self.steps_per_epoch

    def run(self) -> Counters:
        """Train to the end and return the counters, scores included.

        SIGINT and SIGTERM end it after the step, with a checkpoint, by InterruptedRunError.
        """
        counters = self.counters
        if self.progress:
            most = self.settings.cold_start.most_epochs * self.steps_per_epoch
            cold = counters.step - counters.update if counters.cold_finished else most
            self.progress.start(cold + self.updates, counters.step)
        with stop_on_signals() as self._stop:
            if counters.original is None:
                counters.original = self._evaluate(self.grafted)
                if self.progress:
                    self.progress.original(counters.original)
                self._save(best=False)  # so that a run killed in its first epoch can resume
            while not counters.cold_finished:
                self._cold_epoch()
            while counters.epoch < counters.cold_epochs + self.settings.epochs:
                self._training_epoch()
        return counters

    def resume(self) -> bool:
        """Go back to where the run's last checkpoint was; False where it has none."""
        checkpoint = self.run_folder.load() if self.run_folder else None
        if self.run_folder is None or checkpoint is None:
            return False
        self.state.restore(checkpoint)
        if self.processes.leads:
            self.run_folder.forget_metrics_from(self.counters.epoch)
        return True

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
        settings, state, counters = self.settings.cold_start, self.state, self.counters
        counters.cold_hash = counters.cold_hash or parameter_hash(self.grafted)
        frozen = running_statistics_kept(self.grafted) if settings.freeze_batch_norm else nullcontext()
        with learning_rate_zero(self.optimizer), frozen:
            metrics = self._epoch("cold")
        after = moments_of(self.optimizer)
        change = drift(state.moments, after) if state.moments else None
        state.moments = after
        counters.cold_epochs += 1
        settled = settings.until_converged and change is not None and change.settled(settings.tolerance)
        counters.cold_finished = settled or counters.cold_epochs >= settings.most_epochs
        if counters.cold_finished:
            check_unchanged(self.grafted, counters.cold_hash)
            state.moments = None
        self._finish_epoch(metrics | {"moments": asdict(change) if change else None, "evaluation": None}, best=False)

    def _training_epoch(self) -> None:
        metrics = self._epoch("train")
        counters, ema = self.counters, self.state.ema
        counters.last = self._evaluate(ema.module if ema else self.grafted)
        metric = METRIC[self.settings.task]
        better = counters.best is None or counters.last[metric] > counters.best[metric]
        if better:
            counters.best = counters.last
        self._finish_epoch(metrics | {"evaluation": counters.last}, best=better)

    def _epoch(self, phase: str) -> dict[str, Any]:
        """Do the steps that the epoch still has, and return its line of metrics."""
        counters = self.counters
        statistics = EpisodeStatistics(self.grafted.steps, self.processes, counters.statistics)
        batches = self._training.epoch(counters.epoch, counters.batch)
        started, images = time.perf_counter(), 0
        self.grafted.train()
        while counters.batch < self.steps_per_epoch * self.settings.accumulate:
            parts = self._read(batches, statistics)
            images += self._step(parts, statistics, update=phase == "train")
            counters.batch += self.settings.accumulate
            if self.progress:
                self.progress.advance()
            self._save_if_due(statistics)
        self._stop_if_asked(statistics)
        counters.statistics = statistics.totals()  # waits for the device, so it comes before the clock is read
        seconds = time.perf_counter() - started
        summary = summarize(counters.statistics, self._labels)
        if not math.isfinite(summary["loss"]):
            raise SurgeonError(
                f"the loss of epoch {counters.epoch + 1} is {summary['loss']}: training diverged",
                hint="lower training.optimizer.lr, or set training.gradient_clip; earlier checkpoints are kept",
            )
        return {
            "epoch": counters.epoch,
            "phase": phase,
            "step": counters.step,
            **summary,
            "learning_rate": learning_rate(self.optimizer),
            "seconds": seconds,
            "images_per_second": images * self.processes.world_size / seconds,
            "peak_memory_bytes": peak_memory(self.processes.device),
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

    def _evaluate(self, model: nn.Module) -> Scores:
        self.processes.share_buffers(model)
        try:
            return evaluate(model, self._evaluation, self.processes, self._precision, self.settings.task)
        except SurgeonError:
            if self._stop.number is not None:  # loader workers die of a signal to the whole process group
                self._leave(self._stop.number)
            raise

    # Steps

    def _read(self, batches: Iterator[Batch], statistics: EpisodeStatistics) -> list[Batch]:
        """Return the batches of one step: all of them, so that whatever ends a run here ends it between two steps."""
        try:
            parts = list(islice(batches, self.settings.accumulate))
        except SurgeonError:
            if self._stop.number is None:  # loader workers die of a signal to the whole process group
                raise
            parts = []
        self._stop_if_asked(statistics)
        assert len(parts) == self.settings.accumulate, "the epoch has fewer batches than the loader said"
        return parts

    def _step(self, parts: list[Batch], statistics: EpisodeStatistics, *, update: bool) -> int:
        """Do one optimizer step; return how many pictures it saw."""
        counters, scaler, clip = self.counters, self.state.scaler, self.settings.gradient_clip
        if update:
            self.schedule.step_update(counters.update)
        self.optimizer.zero_grad(set_to_none=True)
        for part, (images, labels) in enumerate(parts):
            last = part + 1 == len(parts)
            with self._distributed.no_sync() if self._distributed and not last else nullcontext():
                result = self._forward(images, labels, part)
                scaler.scale(result.loss / len(parts)).backward()
            statistics.add(result)
        if clip is not None:
            scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.grafted.parameters(), clip)
        scaler.step(self.optimizer)
        scaler.update()
        counters.step += 1
        if update:
            counters.update += 1
            if self.state.ema:
                self.state.ema.update(self.grafted)
        return sum(len(images) for images, _ in parts)

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

    # Checkpoints

    def _stop_if_asked(self, statistics: EpisodeStatistics) -> None:
        """Save and leave if any process was told to: all of them leave after the same step."""
        number = self.processes.largest(self._stop.number or 0)
        if number:
            self.counters.statistics = statistics.totals()
            self._leave(number)

    def _leave(self, number: int) -> NoReturn:
        self._save(best=False)
        hint = "go on with the same command and --resume" if self.run_folder else None
        raise InterruptedRunError(
            f"stopped by signal {number} after step {self.counters.step}", hint=hint, number=number
        )

    def _save_if_due(self, statistics: EpisodeStatistics) -> None:
        every = self.settings.checkpoint_steps
        if every is not None and self.counters.step % every == 0:
            self.counters.statistics = statistics.totals()
            self._save(best=False)

    def _save(self, *, best: bool) -> None:
        if self.run_folder and self.processes.leads:
            self.run_folder.save(f"{self.counters.step:08d}", self.state.checkpoint(), best=best)
