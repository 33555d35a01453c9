"""The training loop: the same for every kind of replica and for plain retraining, its control.

An *update* is one optimizer step of the training proper; a *step* counts those of the cold start too. Order and
augmentation of the data are functions of (seed, epoch, sample), dropout and mixing of (seed, step): with the counters
and the tensors of a checkpoint, a resumed run repeats an uninterrupted one bit for bit, if the device's own kernels
repeat themselves (on CUDA see `deterministic_algorithms`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, Self

import torch
from timm.utils import ModelEmaV3
from torch import nn

from spgsurgeon.checkpoint import STATE, naming
from spgsurgeon.data import Batch, EvaluationBatches, TrainingBatches, check_drawn, sample_within
from spgsurgeon.errors import UsageError
from spgsurgeon.objective import SPGLoss
from spgsurgeon.recipe import Recipe, TrainingSection
from spgsurgeon.replicas import GraftedModel, running_statistics_kept
from spgsurgeon.runs import EPISODE_LENGTHS, RunFolder, check_run_state, last_of
from spgsurgeon.runtime import (
    Processes,
    choose_memory_format,
    choose_precision,
    forget_peak_memory,
    lay_out_convolutions,
    stop_on_signals,
)
from spgsurgeon.tasks import Scores, Task
from spgsurgeon.training.cold_start import (
    check_unchanged,
    drift,
    learning_rate_zero,
    moments_of,
    parameter_hash,
)
from spgsurgeon.training.epoch.early_stopping import EarlyStopping
from spgsurgeon.training.epoch.remarks import Remarks
from spgsurgeon.training.epoch.safekeeping import Safekeeping
from spgsurgeon.training.epoch.steps import EpochSteps
from spgsurgeon.training.evaluation import evaluate
from spgsurgeon.training.optimization import learning_rate, make_optimizer, make_schedule
from spgsurgeon.training.progress import Progress
from spgsurgeon.training.soundness.number_guard import NonFiniteError
from spgsurgeon.training.state import Counters, Sizes, TrainingState
from spgsurgeon.training.statistics import LENGTHS, EpisodeStatistics, extremes, summarize
from spgsurgeon.training.stepping import Stepper
from spgsurgeon.training.weights.class_weights import class_weights
from spgsurgeon.training.weights.freezing import Frozen
from spgsurgeon.training.weights.head_start import HeadStart


class Retraining:
    """One retraining from its first step, or from a checkpoint, to its end.

    `recipe` says how; the model, its replicas, the data and the task are given. Without a `run` folder nothing is
    written. `step_labels` and `length_labels` have one entry a step (T+1); see `summarize`. `head` names the parameters
    of the base's head, see `parameter_groups`, and `untrained` says what has learned nothing yet, "head" or "all".
    Checkpoints keep `stands_on`, what a run that resumes compares itself with.
    """

    def __init__(
        self,
        grafted: GraftedModel,
        recipe: Recipe,
        task: Task,
        processes: Processes,
        training: TrainingBatches,
        evaluation: EvaluationBatches,
        *,
        num_classes: int,
        step_labels: Sequence[str],
        length_labels: Sequence[str] | None = None,
        head: Collection[str] | None = None,
        untrained: str | None = None,
        run: RunFolder | None = None,
        progress: Progress | None = None,
        stands_on: Mapping[str, Any] | None = None,
    ) -> None:
        settings = recipe.training
        self.steps_per_epoch = _steps_per_epoch(training, settings)
        self.grafted = grafted.to(processes.device)
        layout = choose_memory_format(settings.memory_format, processes.device, grafted)
        lay_out_convolutions(self.grafted, layout)
        self.recipe, self.settings, self.task = recipe, settings, task
        self.processes, self.run_folder, self.progress = processes, run, progress
        self._training, self._evaluation = training, evaluation
        self._labels = (step_labels, length_labels or step_labels)
        self._num_classes = num_classes
        self._precision = choose_precision(settings.precision, processes.device)
        self._frozen = Frozen(grafted.base, settings.freeze, statistics=settings.batch_norm == "freeze")
        self.optimizer = make_optimizer(grafted, settings.optimizer, head)
        self.schedule = make_schedule(self.optimizer, settings.schedule, settings.epochs, self.steps_per_epoch)
        scaler = torch.amp.GradScaler(processes.device.type, enabled=self._precision == torch.float16)
        ema = ModelEmaV3(grafted, decay=settings.ema) if settings.ema else None
        counters = Counters(
            head_finished=recipe.head_start.most_epochs == 0,
            cold_finished=recipe.cold_start.most_epochs == 0,
            untrained=untrained,
        )
        self.state = TrainingState(grafted, self.optimizer, scaler, ema, counters, stands_on=stands_on or {})
        self._keeping = Safekeeping(self.state, processes, progress)
        self._head_start = HeadStart(grafted, recipe.head_start, head)
        self._remarks = Remarks(training, evaluation, processes, self._keeping)
        self._stepper = Stepper(
            self.state,
            self.schedule,
            recipe,
            task,
            processes,
            num_classes=num_classes,
            precision=self._precision,
            class_weights=class_weights(
                settings.class_weights,
                training.source,
                recipe.data.source,
                task,
                processes,
                self._remarks.say,
            ),
        )
        self._early_stopping = EarlyStopping(settings.early_stopping, task.primary, self.state)
        self._steps = EpochSteps(
            self.state,
            self._stepper,
            training,
            processes,
            self._keeping,
            self._remarks,
            enter_training=self.enter_training,
            tell_losses=run.add_losses if run and processes.leads else None,
            batches_per_epoch=min(training.batches_per_epoch, self.steps_per_epoch * settings.accumulate),
            accumulate=settings.accumulate,
            num_classes=num_classes,
            compiles=settings.compile,
            records=settings.record_episodes,
        )

    @property
    def counters(self) -> Counters:
        """Where the run is."""
        return self.state.counters

    @property
    def batches(self) -> TrainingBatches:
        """What it trains on."""
        return self._training

    @property
    def updates(self) -> int:
        """How many updates the training proper has."""
        return self.settings.epochs * self.steps_per_epoch

    @property
    def remarks(self) -> list[str]:
        """What the images and masks that were read gave reason to say."""
        return self._remarks.said

    def run(self) -> Counters:
        """Train to the end and return the counters, scores included.

        SIGINT, SIGTERM and SIGHUP end it after the step, with a checkpoint, by InterruptedRunError; NaN and infinity
        end it by NonFiniteError, with the checkpoints from before.
        """
        counters = self.counters
        forget_peak_memory(self.processes.device)  # that of runs before this one in the same process
        if self.progress:
            most = (self.recipe.head_start.most_epochs + self.recipe.cold_start.most_epochs) * self.steps_per_epoch
            before = counters.step - counters.update if counters.head_finished and counters.cold_finished else most
            self.progress.start(before + self.updates, counters.step)
        if self.run_folder:
            self._keeping.start(self.run_folder, self.settings.checkpoints)
        with stop_on_signals() as self._keeping.request:
            if counters.original is None:
                counters.original = self._evaluate(self.grafted, first=True).scores
                if self.progress:
                    self.progress.original(counters.original)
                self._remarks.new_head(counters.original["loss"], counters.untrained)
                if self.run_folder and self.processes.leads:
                    self.run_folder.add_original(counters.original)
                    self._record_samples(self.run_folder)
                self._keeping.save()  # so that a run killed in its first epoch can resume
            if not counters.head_finished:
                self._make_head_start()
            while not counters.cold_finished:
                self._cold_epoch()
            last = counters.epochs_before + self.settings.epochs
            stopped_before = self._early_stopping.due
            while counters.epoch < last and not self._early_stopping.due:
                self._training_epoch()
            if counters.epoch < last:
                done = counters.done["train"]
                self._remarks.stopped_early(done, self.settings, self.task.primary, before=stopped_before)
            self._keeping.finish()
            self._remarks.traits()
            self.processes.wait()
        return counters

    def resume(self, folder: Path | None = None) -> bool:
        """Go back to where the checkpoint in `folder`, else the run's last one, was; False if it has none."""
        checkpoint = self.run_folder.load(folder) if self.run_folder else None
        if self.run_folder is None or checkpoint is None:
            return False
        with naming((folder or last_of(self.run_folder.path) or self.run_folder.path) / STATE):
            check_run_state(checkpoint.state)
            Counters(**checkpoint.state["counters"]).check(self._sizes())
            self.state.restore(checkpoint)
        if self.processes.leads:
            if folder is not None:
                self.run_folder.go_back_to(folder)
            self.run_folder.forget_metrics_after(self.counters.done)
        return True

    def _record_samples(self, run: RunFolder) -> None:
        """Say in the run's folder what the samples are whose episodes are to be recorded there."""
        if self.settings.record_episodes and self.grafted.steps > 1:
            source = self._training.source
            labels = source.labels().tolist()  # type: ignore[attr-defined]
            root = self.recipe.data.path
            run.add_samples([sample_within(source.describe(i), root) for i in range(len(source))], labels)

    def _sizes(self) -> Sizes:
        return Sizes(
            epochs=self.settings.epochs,
            head_epochs=self.recipe.head_start.most_epochs,
            cold_epochs=self.recipe.cold_start.most_epochs,
            batches=min(self._training.batches_per_epoch, self.steps_per_epoch * self.settings.accumulate),
            accumulate=self.settings.accumulate,
            steps=self.grafted.steps,
            classes=self._num_classes,
            samples=len(self._training.source),
        )

    def try_batch(self, batch: Batch | None = None) -> SPGLoss:
        """Run a batch, the first one if left out, forward as a step would."""
        self.enter_training()
        return self._stepper.forward(self._training.first() if batch is None else batch)[0]

    def enter_training(self) -> None:
        """Put the model into train mode, but for the batch norms of frozen parts."""
        self.grafted.train()
        self._frozen.keep()
        if self._stepper.plain:
            self._head_start.enter()

    def take_step(self, parts: list[Batch], statistics: EpisodeStatistics) -> None:
        """Take one step of the training proper on these batches, in train mode, and nothing else that a run does.

        Raises NonFiniteError as training does.
        """
        self._stepper.apply(self._stepper.accumulate(parts), statistics, update=True)

    def settle(self) -> None:
        """Wait for the last step, so that all of them are known to be sound. Raises NonFiniteError as training does."""
        self._stepper.settle()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(at_once=kind is not None and not issubclass(kind, Exception))

    def close(self, *, at_once: bool = False) -> None:
        """End loader workers and, unless it must be `at_once`, wait for files that are being written."""
        self._training.close()
        self._evaluation.close()
        self._keeping.close(at_once=at_once)
        if self.run_folder:
            self.run_folder.close()

    # Epochs

    def _make_head_start(self) -> None:
        """Do the epochs of the head start that are left."""
        with self._stepper.plainly(self._head_start.running()):
            while not self.counters.head_finished:
                self._head_epoch()

    def _head_epoch(self) -> None:
        counters = self.counters
        self._head_start.set_rate(self.optimizer, self.settings.optimizer.lr)
        metrics = self._epoch("head")
        finished = self._head_start.finished(counters.head_epochs + 1, counters.head_loss, metrics["loss"])
        # What follows is counted after the evaluation, which a signal may end: a resumed run does it again.
        scores = self._evaluate(self.grafted).scores if finished else None
        counters.head_epochs += 1
        counters.head_loss, counters.head_finished, counters.started = metrics["loss"], finished, scores
        if finished:
            self._remarks.head_start(metrics["loss"])
            if self.state.ema:  # it is of the training proper
                self.state.ema.set(self.grafted)
        self._finish_epoch(metrics | {"evaluation": scores}, best=False)

    def _cold_epoch(self) -> None:
        rule, state, counters = self.recipe.cold_start, self.state, self.counters
        counters.cold_hash = counters.cold_hash or parameter_hash(self.grafted)
        frozen = running_statistics_kept(self.grafted) if rule.batch_norm == "freeze" else nullcontext()
        with learning_rate_zero(self.optimizer), frozen:
            metrics = self._epoch("cold")
        after = moments_of(self.optimizer)
        change = drift(state.moments, after) if state.moments else None
        state.moments = after
        counters.cold_epochs += 1
        settled = rule.until == "converged" and change is not None and change.settled(rule.tolerance)
        counters.cold_finished = settled or counters.cold_epochs >= rule.most_epochs
        if counters.cold_finished:
            check_unchanged(self.grafted, counters.cold_hash)
            state.moments = None
        self._finish_epoch(metrics | {"moments": asdict(change) if change else None, "evaluation": None}, best=False)

    def _training_epoch(self) -> None:
        metrics = self._epoch("train")
        counters, ema = self.counters, self.state.ema
        if not counters.done["train"] and counters.head_loss is not None and self._frozen.follows_batches:
            self._remarks.after_head_start(counters.head_loss, metrics["step_cross_entropy"][0])
        evaluated = self._evaluate(ema.module if ema else self.grafted)
        counters.last = evaluated.scores
        if math.isnan(counters.last["loss"]):
            raise NonFiniteError(
                f"the model after step {counters.step} scores a loss of NaN",
                hint="lower training.optimizer.lr, or set training.gradient_clip; earlier checkpoints are kept",
            )
        metric = self.task.primary
        better = counters.best is None or metric.better(counters.last[metric.name], counters.best[metric.name])
        if better:
            counters.best = counters.last
        self._early_stopping.count(counters.last[metric.name])
        found = {"evaluation": counters.last, "by_class": evaluated.by_class}
        self._finish_epoch(metrics | found, best=better)

    def _epoch(self, phase: str) -> dict[str, Any]:
        """Do the steps that the epoch still has, and return its line of metrics."""
        counters = self.counters
        advance = self.progress.advance if self.progress else lambda: None
        figures = self._steps.take(update=phase == "train", advance=advance)
        assert counters.statistics is not None
        return {
            "epoch": counters.done[phase] + 1,
            "phase": phase,
            "step": counters.step,
            **summarize(counters.statistics, *(labels[: 1 if phase == "head" else None] for labels in self._labels)),
            "pictures": extremes(counters.statistics, self._training.source, self.recipe.data.path),
            "skipped_steps": counters.skipped,
            "learning_rate": learning_rate(self.optimizer),
            **figures,
        }

    def _finish_epoch(self, metrics: dict[str, Any], *, best: bool) -> None:
        counters = self.counters
        lengths = (counters.statistics or {}).get(LENGTHS)
        counters.epoch += 1
        counters.batch = 0
        counters.statistics = None
        metrics |= {"unreadable_pictures": len(counters.unreadable)}
        if counters.epoch == 1:
            self._remarks.training_masks()
        self._keeping.save(best=best, line=metrics | ({EPISODE_LENGTHS: lengths[0]} if lengths else {}))
        if self.progress:
            self.progress.epoch(metrics)
        self.processes.wait()

    def _evaluate(self, model: nn.Module, *, first: bool = False) -> _Evaluated:
        """Return how the model scores; a signal ends this as it ends training, between two batches at the latest.

        The `first` time masks are looked at, too. Raises DataError for such as no score could tell anything of.
        """
        self.processes.share_buffers(model)
        batches = self._evaluation.run(self._keeping.stop_if_asked)
        tally = self.task.tally(self.processes)
        scores = self._keeping.or_leave(
            lambda: evaluate(
                model,
                batches,
                self.processes,
                self._precision,
                self.task,
                memory_format=self.settings.memory_format,
                tally=tally,
                source=self._evaluation.source,
            )
        )
        self._remarks.unreadable(self.counters)
        if first and (drawn := tally.drawn()) is not None:
            check_drawn(drawn, self._evaluation.source)
            self._remarks.masks(drawn, self._evaluation.source)
        found = tally.confusions() if self.task.has_classes else None
        return _Evaluated(scores, found.record() if found else None)


class _Evaluated(NamedTuple):
    """The scores of an evaluation, and what a line of metrics says of each class, if units have classes."""

    scores: Scores
    by_class: dict[str, Any] | None


def _steps_per_epoch(training: TrainingBatches, settings: TrainingSection) -> int:
    """Return how many steps an epoch has. Raises UsageError if it has none."""
    # If all samples count, the last step may have fewer batches, as the last batch may have fewer samples.
    spare = 0 if settings.drop_last else settings.accumulate - 1
    steps = (training.batches_per_epoch + spare) // settings.accumulate
    if not steps:
        raise UsageError(
            f"an epoch has {training.batches_per_epoch} batches, fewer than accumulate={settings.accumulate}",
            hint="lower training.accumulate or training.batch_size",
        )
    return steps
