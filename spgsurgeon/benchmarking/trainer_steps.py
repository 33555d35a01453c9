"""The plain step as transformers' Trainer takes it, for models of transformers."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.benchmarking.arms import TRAINER, Arm
from spgsurgeon.data import Batch
from spgsurgeon.errors import UsageError
from spgsurgeon.models import IMAGES, head_of_class
from spgsurgeon.recipe import Recipe
from spgsurgeon.replicas import detach
from spgsurgeon.runtime import Processes, choose_precision
from spgsurgeon.training import Case


def trainer_arm(case: Case, processes: Processes, parts: list[Batch]) -> Arm:
    """Return Trainer's own step on these batches: its loss, its AdamW, its clipping and its schedule.

    `case` is of a model without replicas, and can't be trained otherwise after that. Raises UsageError for a model that
    is not of transformers or whose labels are not those that its own loss takes, and for other optimizers.
    """
    from transformers import Trainer
    from transformers.utils import find_labels

    training = case.recipe.training
    base = detach(case.grafted)
    _check(case, base)
    with TemporaryDirectory() as folder:
        trainer = Trainer(base, _arguments(case.recipe, processes, folder))
    trainer.create_optimizer_and_scheduler(num_training_steps=1_000_000)
    trainer.current_gradient_accumulation_steps = len(parts)
    names = find_labels(type(base))
    parts = [part._replace(targets=case.task.labels_of_targets(part.targets)) for part in parts]
    batches = [_with_labels(part, str(base.main_input_name), names) for part in parts]
    clip = training.gradient_clip

    def step() -> None:
        for batch in batches:
            trainer.training_step(base, dict(batch))
        if clip is not None:
            trainer.accelerator.clip_grad_norm_(base.parameters(), clip)
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        base.zero_grad()

    base.train()
    return Arm(
        TRAINER,
        base,
        trainer.optimizer,
        step,
        forward=lambda: base(**batches[0]).loss,
        device=processes.device,
    )


def _check(case: Case, base: torch.nn.Module) -> None:
    if head_of_class(type(base)) is None:
        raise UsageError(
            f"arm {TRAINER} is for models of transformers (this is a {type(base).__name__})",
            hint="leave it out of --arms",
        )
    training = case.recipe.training
    if training.optimizer.name != "adamw" or training.ema or case.recipe.objective.label_smoothing:
        raise UsageError(
            f"arm {TRAINER} has Trainer's AdamW, and neither a moving average nor label smoothing",
            hint="training.optimizer.name=adamw training.ema=null objective.label_smoothing=0",
        )


def _arguments(recipe: Recipe, processes: Processes, folder: str) -> Any:
    from transformers import TrainingArguments

    optimizer = recipe.training.optimizer
    precision = choose_precision(recipe.training.precision, processes.device)
    return TrainingArguments(
        folder,
        learning_rate=optimizer.lr,
        weight_decay=optimizer.weight_decay,
        gradient_accumulation_steps=recipe.training.accumulate,
        use_cpu=processes.device.type == "cpu",
        bf16=precision == torch.bfloat16,
        fp16=precision == torch.float16,
        torch_compile=recipe.training.compile,
        report_to="none",
        disable_tqdm=True,
    )


def _with_labels(part: Batch, main_input: str, names: list[str]) -> dict[str, Tensor]:
    """Return what the model takes: its inputs and, by their names, its labels."""
    labels = [part.targets] if len(names) == 1 else part.targets.unbind(1)
    inputs = {main_input if name == IMAGES else name: value for name, value in part.inputs.items()}
    return inputs | dict(zip(names, labels, strict=True))
