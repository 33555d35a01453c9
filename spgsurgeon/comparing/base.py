"""The base of a comparison: the model that all arms start from, and what is known of its own training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.checkpoint import (
    CONFIG,
    STATE,
    WEIGHTS,
    content_hash,
    read_manifest,
    read_state,
    write_json,
    write_safetensors,
)
from spgsurgeon.data import Source, Subset, check_classes, samples_of
from spgsurgeon.errors import SurgeonError
from spgsurgeon.loading import UNTRAINED, ModelRequest, OpenedModel, open_model, resolve_folder, state_of
from spgsurgeon.recipe import HOLDOUT, DataSection, Recipe, read_recipe
from spgsurgeon.replicas import layout_of_state
from spgsurgeon.runs import RECIPE
from spgsurgeon.surgery import prove_file
from spgsurgeon.training import names_of, open_data, open_training, table_of, with_models_order


def open_base(request: ModelRequest, recipe: Recipe) -> OpenedModel:
    """Return the model that all arms start from; a random one has as many classes as the data.

    Its classes have names then, by which every run and every score takes the data's. Raises UsageError if it has
    other classes or another task than the data.
    """
    data = open_data(recipe.data)
    classes = len(data.train.classes)
    opened = open_model(request.for_data_of(classes, new_head=recipe.new_head))
    opened.task.check_samples(samples_of(recipe.data.source), request.model)
    hint = f"the same command with --num-classes {classes} gives it a new, untrained head"
    if opened.task.has_classes:
        check_classes(data.train, opened.identity.num_classes, request.model, hint=hint)
    data, said = with_models_order(data, opened, recipe.data, request.model)
    names, table = names_of(data.train, opened), table_of(data.train, opened, recipe.data)
    return replace(opened, label_names=names, class_map=table, notes=[*opened.notes, *said, *data.said])


def write_base(folder: Path, opened: OpenedModel) -> None:
    """Write the base as a folder of the Hub's layout, which every run of the comparison reads.

    Raises VerificationError if the weights, read back, are others.
    """
    folder.mkdir()
    state = state_of(opened.module)
    write_safetensors(folder / WEIGHTS, state)
    prove_file(folder / WEIGHTS, content_hash(state), layout_of_state(state))
    untrained = {UNTRAINED: list(opened.untrained)} if opened.untrained else {}
    write_json(folder / CONFIG, opened.config() | untrained)
    for name, content in opened.beside().items():
        (folder / name).write_bytes(content)


# What it has seen


def seen_by(opened: OpenedModel, data: DataSection) -> dict[str, int] | None:
    """Return how many images of each part of a comparison on `data` its base was trained on.

    The parts are `chosen_on`, what is held out of training, and `scored_on`. None if the base is not known to come
    from a run, or that one's images can't be told any more.
    """
    try:
        histories = [recipe.data for recipe in _recipes_behind(opened)]
        if not histories:
            return None
        held_out = data.model_copy(update={"eval": HOLDOUT})
        return {
            "chosen_on": _common(histories, data.train, held_out),
            "scored_on": _common(histories, data.eval, data),
        }
    except SurgeonError:
        return None


def _common(histories: Sequence[DataSection], split: str, data: DataSection) -> int:
    """Return how many of the images that `data` evaluates on, which are of `split`, were trained on before."""
    trained = [past for past in histories if _place(past, past.train) == _place(data, split)]
    if not trained:
        return 0
    before = np.concatenate([_numbers(open_training(past)) for past in trained])
    return int(np.isin(_numbers(open_data(data).evaluation), before).sum())


def _place(data: DataSection, split: str) -> tuple[str, Path | None, str]:
    """Return what makes images of the same number the same ones."""
    return data.source, Path(data.path).expanduser().resolve() if data.path else None, split


def _numbers(source: Source[Any]) -> NDArray[np.int64]:
    """Return the samples' numbers in the whole data set."""
    return source.indices if isinstance(source, Subset) else np.arange(len(source))


def _recipes_behind(opened: OpenedModel) -> Iterator[Recipe]:
    """Yield the recipes of the run that the model comes from, of the run that this one started from, and so on.

    What is gone, can't be read or has other weights by now ends it: nothing is known then.
    """
    folder, manifest = opened.folder, opened.manifest
    with suppress(SurgeonError, OSError):
        while folder is not None and manifest is not None:
            run = folder.resolve().parent.parent
            if (run / RECIPE).is_file():
                yield read_recipe(run / RECIPE)
            folder = resolve_folder(Path(manifest.base["source"]))
            expected, manifest = manifest.base["content_hash"], read_manifest(folder)
            if expected not in _hashes(folder, manifest.weights_hash):
                return


def _hashes(folder: Path, weights_hash: str) -> set[str | None]:
    """Return the content hashes of the weights in a grafted folder or a checkpoint, the moving average's among them."""
    average = read_state(folder)["hashes"].get("ema") if (folder / STATE).is_file() else None
    return {weights_hash, average}
