"""The base of a comparison: the model that all arms start from, and what is known of its own training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint.writing import write_json, write_safetensors
from spgsurgeon.recipe.data_section import MASKS
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.workflows.evaluate import check_classes, check_task
from spgsurgeon.workflows.opening import OpenedModel, open_model, state_of
from spgsurgeon.workflows.pictures import open_data

WEIGHTS = "model.safetensors"


def open_base(model: str, recipe: Recipe, *, random_weights: bool, **options: Any) -> OpenedModel:
    """Return the model that all arms start from; a random one has as many classes as the data.

    Raises UsageError where it has other classes or another task than the data.
    """
    train = open_data(recipe.data).train
    classes = len(train.classes)
    if random_weights and options.get("num_classes") is None:
        options["num_classes"] = classes
    opened = open_model(model, random_seed=recipe.training.seed if random_weights else None, **options)
    check_task(opened.task, recipe.data.source in MASKS, model)
    hint = f"the same command with --num-classes {classes} gives it a new, untrained head"
    check_classes(train, opened.identity.num_classes, model, hint=hint)
    return opened


def write_base(folder: Path, opened: OpenedModel) -> None:
    """Write the base as a folder of the Hub's layout, which every run of the comparison reads."""
    folder.mkdir()
    write_safetensors(folder / WEIGHTS, state_of(opened.module))
    write_json(folder / "config.json", opened.config())
