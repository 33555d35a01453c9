"""A `transformers.Trainer` whose training loss is the objective's; all else of it stays as it is.

Trainer keeps a model that is not a `PreTrainedModel` as a bare state dict. Here the base of a grafted model is kept
instead, as Trainer keeps any other, so that each checkpoint is a folder for `from_pretrained`, with the replicas
beside it in a file of their own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import TEMPORARY, read_safetensors, write_safetensors
from spgsurgeon.errors import UsageError
from spgsurgeon.models import head_of_class
from spgsurgeon.objective import SPGLoss, loss_of_readout, spg_loss
from spgsurgeon.replicas import GraftedModel, joined
from spgsurgeon.runtime import extra_hint
from spgsurgeon.tasks import Task, task_named
from spgsurgeon.training import Logits, logits_of

try:
    from transformers import PreTrainedModel, Trainer
    from transformers.utils import find_labels
except ImportError as error:
    raise UsageError(
        "SPGTrainer needs transformers, which is not installed", hint=extra_hint("transformers"), code="missing-package"
    ) from error

_LENT = ("activation_checkpointing_enable", "gradient_checkpointing_enable")
"""What Trainer calls on a model, and a grafted one takes from its base."""


class SPGTrainer(Trainer):  # type: ignore[misc]
    """Trains a grafted model of transformers; give it what you give Trainer.

        model = spgsurgeon.graft(AutoModelForSequenceClassification.from_pretrained("bert-base-cased"), rate=0.1)
        trainer = SPGTrainer(model, TrainingArguments("runs"), train_dataset=..., eval_dataset=..., data_collator=...)
        trainer.train()
        spgsurgeon.strip(trainer.model).save_pretrained("better")

    `form`, `weights` (one for each replica), `label_smoothing` and `loss_normalization` are those of `spg_loss`. The
    training loss of a batch is that of `spgsurgeon.train` on the same batch. Evaluation and prediction are the base's
    own: its loss, without replicas and smoothing. With gradient accumulation a step has the mean of its batches'
    losses. Logs have `valid_1` to `valid_T` besides: the percentage of units whose episode reached that replica.

    A checkpoint is the base as `save_pretrained` writes it, and `temporary.safetensors`, which resuming reads.

    Raises UsageError for a model that is not grafted or not of transformers, a wrong number of weights, smoothing of
    the model's own loss (`args.label_smoothing_factor`), and for DataParallel, FSDP and DeepSpeed, which have not been
    made to work: start one process for each device (torchrun).
    """

    model: Any

    def __init__(
        self,
        model: GraftedModel | None = None,
        args: Any = None,
        *,
        form: str = "step",
        weights: Sequence[float] = (0.4, 0.2, 0.1),
        label_smoothing: float = 0.0,
        loss_normalization: bool = False,
        **options: Any,
    ) -> None:
        self._objective: dict[str, Any] = {"form": form, "weights": tuple(weights)}
        self._objective["loss_normalization"] = loss_normalization
        self._label_smoothing = label_smoothing
        _refuse_smoothing(args)
        super().__init__(model if model is None else _prepared(model, weights), args, **options)
        self._refuse_what_splits_models()
        base = self._base
        self.model_accepts_loss_kwargs = False  # losses are means over a batch
        if self.args.label_names is None:
            self.label_names = find_labels(type(base))
        self._signature_columns = [*inspect.signature(base.forward).parameters, "label", "label_ids", *self.label_names]
        self._valid: Tensor | None = None

    @property
    def _base(self) -> PreTrainedModel:
        return self.model.base

    @property
    def _task(self) -> Task:
        head = head_of_class(type(self._base))
        assert head is not None  # `_prepared` looked
        return task_named(head.task)

    def call_model_init(self, trial: Any = None) -> GraftedModel:
        """Make a grafted model by `model_init`."""
        return _prepared(super().call_model_init(trial), self._objective["weights"])

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch: in train mode the objective's, in eval mode the base's own."""
        if not model.training:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        inputs = dict(inputs)
        targets = [inputs.pop(name) for name in self.label_names]
        with self.accelerator.autocast():
            logits = logits_of(self._task, model, inputs, base=self._base, output=joined)
            result = self._loss(logits, targets[0] if len(targets) == 1 else torch.stack(targets, dim=1))
        self._count(result)
        outputs = {"logits": logits} if isinstance(logits, Tensor) else {}
        return (result.loss, outputs) if return_outputs else result.loss

    def _loss(self, logits: Logits, targets: Tensor) -> SPGLoss:
        smoothing, task = self._label_smoothing, self._task
        targets = task.targets_of_labels(targets)
        how: dict[str, Any] = {**self._objective, "mean_over_ranks": self._mean_over_ranks}
        if task.read is not None:
            return loss_of_readout(task.read(logits, targets, self.model.steps, smoothing), **how)
        assert isinstance(logits, Tensor)
        return spg_loss(logits, targets, label_smoothing=smoothing, class_dim=1, **how)

    @property
    def _mean_over_ranks(self) -> Callable[[Tensor], Tensor] | None:
        if self.accelerator.num_processes == 1:
            return None
        return lambda value: self.accelerator.reduce(value, reduction="mean")

    def _count(self, result: SPGLoss) -> None:
        sizes = result.step_sizes.detach()
        self._valid = sizes if self._valid is None else self._valid + sizes

    def log(self, logs: dict[str, float], *more: Any, **options: Any) -> None:
        """Log, with the percentage of units whose episode reached each replica since training was last logged."""
        if "loss" in logs and self._valid is not None:
            first, *later = self._valid.tolist()
            logs |= {f"valid_{step}": 100 * size / max(first, 1) for step, size in enumerate(later, 1)}
            self._valid = None
        super().log(logs, *more, **options)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> Any:
        """Evaluate a batch by the base."""
        if ignore_keys is None:
            ignore_keys = getattr(self._base.config, "keys_to_ignore_at_inference", [])
        return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        with self._base_alone():
            super()._save(output_dir)
        if self.args.should_save:
            folder = Path(self.args.output_dir if output_dir is None else output_dir)
            write_safetensors(folder / TEMPORARY, self.model.replicas.state_dict())

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with self._base_alone():
            super()._load_from_checkpoint(resume_from_checkpoint)
        self._load_replicas(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        with self._base_alone():
            super()._load_best_model()
        self._load_replicas(self.state.best_model_checkpoint)

    def _load_replicas(self, folder: str) -> None:
        replicas, _ = read_safetensors(Path(folder) / TEMPORARY)
        self.model.replicas.load_state_dict(replicas)

    @contextmanager
    def _base_alone(self) -> Iterator[None]:
        """Let the base be the trainer's model inside the block."""
        grafted = self.model
        self.model = grafted.base
        try:
            yield
        finally:
            self.model = grafted

    def _refuse_what_splits_models(self) -> None:
        if self.args.n_gpu > 1 or self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise UsageError(
                "SPGTrainer can't split a grafted model, or a process's batches (DataParallel, FSDP, DeepSpeed)",
                hint="start one process for each device: torchrun --nproc-per-node N",
                code="split-model",
            )


def _prepared(model: Any, weights: Sequence[float]) -> GraftedModel:
    """Return the grafted model with what Trainer asks of it. Raises UsageError for others."""
    if not isinstance(model, GraftedModel) or head_of_class(type(model.base)) is None:
        raise UsageError(
            f"SPGTrainer trains a grafted model of transformers, not a {_described(model)}",
            hint="SPGTrainer(spgsurgeon.graft(model, replicas=3, rate=0.1), ...)",
            code="not-grafted",
        )
    if len(model.shape) > 1:
        raise UsageError(
            "SPGTrainer trains one chain of replicas, not a mesh",
            hint="spgsurgeon.train does, and a loop of your own with spg_loss",
            code="mesh-in-trainer",
        )
    if len(weights) != model.steps - 1:
        raise UsageError(
            f"{len(weights)} weights for {model.steps - 1} replicas",
            hint="give SPGTrainer weights=(...), one for each replica",
            code="unfit-rows",
        )
    for name in _LENT:
        if method := getattr(model.base, name, None):
            setattr(model, name, method)
    return model


def _refuse_smoothing(args: Any) -> None:
    if args is not None and args.label_smoothing_factor:
        raise UsageError(
            "args.label_smoothing_factor smooths the loss of a model, also in evaluation",
            hint="give SPGTrainer label_smoothing=..., which is for training alone",
            code="smoothed-evaluation",
        )


def _described(model: Any) -> str:
    return f"grafted {type(model.base).__name__}" if isinstance(model, GraftedModel) else type(model).__name__
