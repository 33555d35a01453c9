"""What a measurement is of: a model, a recipe, and data, real or noise."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spgsurgeon.benchmarking.arms import CHANGES, check_arm
from spgsurgeon.benchmarking.noise import Noise, noise_blocks
from spgsurgeon.data import CORPUS, MASKED, Data, Source, form_of, spelled
from spgsurgeon.errors import RecipeError, UsageError
from spgsurgeon.loading import ModelRequest, OpenedModel, open_model
from spgsurgeon.models import LIBRARIES, NamedModel, TextPreprocessing, of_images, parse_model
from spgsurgeon.recipe import Recipe, read_recipe
from spgsurgeon.replicas.kinds import REPLICAS
from spgsurgeon.runtime import default_workers
from spgsurgeon.tasks import Task
from spgsurgeon.training import Case, open_training, prepare, settled_preprocessing

OWN_DATA = "recipe"
"""The data that the recipe's data section describes."""
_COUNTS_FOR_NOISE = (
    *("data.image_size", "data.augment.mixup", "data.augment.cutmix"),
    *("data.max_length", "data.mlm_probability"),
)
_KEPT_WEIGHTS = "training.optimizer.lr=1.0e-6"  # so small that all arms keep, in effect, the weights they start with


@dataclass(frozen=True)
class Subject:
    """What all arms have in common."""

    request: ModelRequest
    task: Task
    source: str | Path | None
    overrides: tuple[str, ...]
    recipe: Recipe
    data: Data

    @property
    def workers(self) -> int:
        """How many processes its loader has."""
        return default_workers() if self.recipe.data.workers is None else self.recipe.data.workers

    def recipe_of(self, arm: str) -> Recipe:
        """Return what an arm trains by. Raises UsageError if the recipe or the model can't be trained so."""
        try:
            recipe = read_recipe(self.source, [*self.overrides, *CHANGES[arm]])
        except RecipeError as error:
            raise RecipeError(f"arm {arm}: {error.message}", hint=error.hint, **error.details) from error
        check_arm(arm, recipe, self.task)
        return recipe

    def case(self, recipe: Recipe) -> Case:
        """Return what is trained by an arm's recipe, always from the same weights."""
        return prepare(recipe, self.request, data=self.data)


def settle_subject(
    request: ModelRequest,
    source: str | Path | None,
    overrides: Sequence[str],
    data: str | None,
) -> Subject:
    """Return the subject of these arguments of `bench`. A library's model by name is built with random weights."""
    named = parse_model(request.model)
    by_name = isinstance(named, NamedModel) and named.library in LIBRARIES
    drawn = by_name and not request.model.startswith("hf-hub:")
    request = replace(request, random_seed=0 if drawn else None)
    opened = open_model(request)
    settled = (*_data_overrides(source, overrides, data, opened.task), *overrides, _KEPT_WEIGHTS)
    if data is None:
        settled = (*settled, _noise_section(read_recipe(source, settled), opened.task))
    recipe = read_recipe(source, settled)
    if recipe.trp.control:
        raise UsageError(
            f"the recipe has no replicas (trp.kind is {recipe.trp.kind}), so there is nothing to compare",
            hint=f"trp.kind={' or '.join(REPLICAS)}; plain steps are measured beside them",
        )
    train = _noise(recipe, opened) if data is None else open_training(recipe.data)
    return Subject(request, opened.task, source, settled, recipe, Data(train, train))


def unused_without_data(overrides: Sequence[str]) -> list[str]:
    """Return the note, if any, that some overrides say what does not count for images of noise."""
    keys = [override.partition("=")[0] for override in overrides]
    idle = [key for key in keys if key.startswith("data.") and not key.startswith(_COUNTS_FOR_NOISE)]
    return [f"without --data the images are noise, for which {', '.join(idle)} does not count"] if idle else []


def _data_overrides(
    source: str | Path | None, overrides: Sequence[str], data: str | None, task: Task
) -> tuple[str, ...]:
    """Return what `data` says of the recipe's data section; without data and recipe, something that is valid."""
    if data == OWN_DATA:
        return ()
    if data is None:
        says = source is not None or any(override.startswith(("data.source=", "data=")) for override in overrides)
        return () if says else _any_data(task)
    if Path(data).expanduser().is_dir():
        return (f"data.source={task.source}", f"data.path={json.dumps(data)}")
    if os.sep in data:
        try:
            form_of(data)
        except UsageError as error:
            hint = f"--data is a folder, or one of {spelled()}; or {OWN_DATA}, for what the recipe says"
            raise UsageError(f"there is no folder {data}", hint=hint) from error
    return (f"data.source={json.dumps(data)}",)


def _any_data(task: Task) -> tuple[str, ...]:
    return (f"data.source={task.source}", "data.path=.")


def _noise_section(recipe: Recipe, task: Task) -> str:
    """Return a data section for noise, which has the recipe's size and what the recipe does on the device."""
    data = recipe.data
    counts: dict[str, Any] = {
        "image_size": data.image_size,
        "augment": {"mixup": data.augment.mixup, "cutmix": data.augment.cutmix},
    }
    if task.samples == CORPUS:
        counts = {"max_length": data.max_length, "mlm_probability": data.mlm_probability}
    section = dict(part.removeprefix("data.").split("=") for part in _any_data(task))
    return "data=" + json.dumps(section | counts | {"workers": 0})


def _noise(recipe: Recipe, opened: OpenedModel) -> Source[Any]:
    if opened.task.samples == CORPUS:
        read = settled_preprocessing(opened, recipe.data, None)
        assert isinstance(read, TextPreprocessing)
        return noise_blocks(read, recipe.training.batch_size * recipe.training.accumulate)
    classes = tuple(str(label) for label in range(opened.identity.num_classes))
    _, height, width = of_images(opened.preprocessing, opened.source).at(recipe.data.image_size).input_size
    return Noise(classes, (height, width), masks=opened.task.samples == MASKED)
