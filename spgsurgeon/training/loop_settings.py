"""What the training loop is told, from what a recipe says."""

from __future__ import annotations

from spgsurgeon.errors import UsageError
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.training.settings import Checkpoints, ColdStart, Objective, Optimizer, Schedule, Settings


def settings_of(recipe: Recipe, replicas: int) -> Settings:
    """Return what the loop is told, from what the recipe says, for a model with that many replicas."""
    training, objective, cold = recipe.training, recipe.objective, recipe.cold_start
    if replicas and len(objective.weights) != replicas:
        raise UsageError(f"objective.weights has {len(objective.weights)} entries for {replicas} replicas")
    return Settings(
        epochs=training.epochs,
        objective=Objective(
            form=objective.form,
            weights=objective.weights if replicas else (),
            label_smoothing=objective.label_smoothing,
            loss_normalization=objective.loss_normalization,
        ),
        optimizer=Optimizer(**training.optimizer.model_dump()),
        schedule=Schedule(**training.schedule.model_dump()),
        cold_start=ColdStart(
            epochs=cold.epochs,
            until_converged=cold.until == "converged",
            max_epochs=cold.max_epochs,
            tolerance=cold.tolerance,
            freeze_batch_norm=cold.batch_norm == "freeze",
        ),
        gradient_clip=training.gradient_clip,
        accumulate=training.accumulate,
        mixup=recipe.data.augment.mixup,
        cutmix=recipe.data.augment.cutmix,
        ema=training.ema,
        precision=training.precision,
        memory_format=training.memory_format,
        compile=training.compile,
        checkpoints=Checkpoints(steps=training.checkpoints.steps, minutes=training.checkpoints.minutes),
        non_finite=training.non_finite,
        max_skips=training.max_skips,
        seed=training.seed,
    )
