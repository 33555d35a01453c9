"""What a retraining starts from: data, model, replicas, each opened and all checked against each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from shlex import quote
from typing import Any

import torch

from spgsurgeon.checkpoint import TEMPORARY, GraftManifest, layout_hash, read_safetensors
from spgsurgeon.data import (
    Data,
    check_classes,
    check_same_classes,
    classes_said_by,
    samples_of,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import ModelRequest, OpenedModel, in_float32, open_model, state_of
from spgsurgeon.models import Preprocessing
from spgsurgeon.recipe import DataSection, Recipe
from spgsurgeon.replicas import GraftedModel
from spgsurgeon.runtime import processes_of_run
from spgsurgeon.surgery import graft_proven, regraft
from spgsurgeon.tasks import Task
from spgsurgeon.training.data import open_data, settled_preprocessing
from spgsurgeon.training.soundness.batch_norms import check_batch_norms
from spgsurgeon.training.soundness.image_sizes import for_images_of
from spgsurgeon.training.soundness.labels import names_of, table_of, with_models_order


@dataclass(frozen=True)
class Case:
    """Everything a run starts from, checked together."""

    recipe: Recipe
    data: Data
    opened: OpenedModel
    grafted: GraftedModel
    manifest: GraftManifest
    config: dict[str, Any]
    head: frozenset[str] | None = None
    """The names of the head's parameters, if something of the run goes by them."""

    @property
    def task(self) -> Task:
        """What the model predicts, judged as the recipe says."""
        return self.opened.task.scored_by(self.recipe.training.metric)


def prepare(
    recipe: Recipe,
    request: ModelRequest,
    *,
    resumes: bool = False,
    data: Data | None = None,
) -> Case:
    """Open the data and the model, check them against each other, and graft the model unless it is grafted.

    A control takes the base of a grafted folder: it is that of the same command. `data` is what was opened already.
    """
    section, asked = recipe.data, recipe
    data = data or open_data(section)
    check_same_classes(data.train, data.evaluation)
    model, classes = request.model, len(data.train.classes)
    asked_for = request if resumes else request.for_data_of(classes, new_head=recipe.new_head)
    opened = in_float32(open_model(asked_for), "trained, and written,")
    _move_out_of_the_file(opened.module)
    opened.task.check_samples(samples_of(section.source), model)
    said_by = classes_said_by(section.source, section.path, section.classes)
    if opened.task.has_classes:
        asker = f"{model} with --num-classes {request.num_classes}" if request.num_classes is not None else model
        check_classes(data.train, opened.identity.num_classes, asker, _new_head(opened, classes), said_by=said_by)
    opened.task.scored_by(recipe.training.metric)
    opened = for_images_of(section, opened)
    if isinstance(opened.preprocessing, Preprocessing) and recipe.training.batch_norm == "track":
        input_size = opened.preprocessing.at(section.image_size).input_size
        check_batch_norms(opened.module, input_size, *_smallest_batch(recipe, len(data.train)))
    data, matched = with_models_order(data, opened, section, model)
    data = _arranged(data, opened, section)
    opened = replace(
        opened,
        label_names=names_of(data.train, opened),
        class_map=table_of(data.train, opened, section),
        ignored=section.ignore,
        mask_values=section.mask_values or {},
        value_range=section.value_range,
        notes=[
            *opened.notes,
            *dict.fromkeys((*data.train.notes, *data.evaluation.notes)),
            *_other_range(section, opened),
            *([] if resumes else matched),
        ],
    )
    head_batch = recipe.trp.head_mode
    recipe = recipe if resumes else _with_head_start(recipe, opened)
    goes_by_head = recipe.training.optimizer.head_lr is not None or recipe.head_start.most_epochs
    head = _head(opened) if goes_by_head else None  # before replicas are in its way
    if not resumes and (recipe.trp.control or not opened.has_replicas):
        proven = graft_proven(opened, recipe.trp, head_batch=head_batch, seed=recipe.training.seed)
        grafted, manifest = proven.grafted, proven.manifest
    else:
        assert opened.manifest is not None
        assert opened.folder is not None
        _check_agreement(recipe, opened.manifest, model)
        temporary = read_safetensors(opened.folder / TEMPORARY)[0]
        grafted = regraft(opened, temporary, head_batch=head_batch)
        manifest = opened.manifest
    manifest = replace(manifest, base=manifest.base | {"layout": layout_hash(state_of(grafted.base))})
    config = opened.config()
    if isinstance(opened.preprocessing, Preprocessing) and opened.config_document is None:
        config["pretrained_cfg"] = _of_retrained(config["pretrained_cfg"], section, opened.preprocessing.input_size)
    if not resumes and opened.new_head and recipe.head_start.most_epochs and asked.head_start.open:
        opened = replace(opened, notes=[*opened.notes, _said_of_start(recipe)])
    return Case(recipe, data, opened, grafted, manifest, config, head)


def _arranged(data: Data, opened: OpenedModel, section: DataSection) -> Data:
    """Return the samples that the model reads, made of what the data has."""
    preprocessing = settled_preprocessing(opened, section, section.image_size)
    train, evaluation = (opened.task.arranged(part, preprocessing) for part in (data.train, data.evaluation))
    return Data(train, evaluation, data.said)


def _said_of_start(recipe: Recipe) -> str:
    return (
        f"the head is new: up to {recipe.head_start.max_epochs} plain epochs of it alone come first, until its loss "
        "stops falling (head_start; head_start.epochs=0 is none)"
    )


def _with_head_start(recipe: Recipe, opened: OpenedModel) -> Recipe:
    """Return the recipe with the head start that it has for this model, in so many words: a resumed run goes by it."""
    return recipe.model_copy(update={"head_start": recipe.head_start.settled(new_head=opened.new_head)})


def _head(opened: OpenedModel) -> frozenset[str]:
    """Return the names of the parameters of the layers that make the logits, and of all that is new with them."""
    modules = {site.module for site in opened.sites}
    names = (f"{path}.{name}" for path in modules for name, _ in opened.module.get_submodule(path).named_parameters())
    return frozenset(names) | (frozenset(opened.untrained) if opened.new_head else frozenset())


def _smallest_batch(recipe: Recipe, samples: int) -> tuple[int, bool]:
    """Return the fewest samples that a process takes at once, and whether that is only so in an epoch's last batch."""
    size, processes = recipe.training.batch_size, processes_of_run()
    rest = samples % (size * processes)
    partial = not recipe.training.drop_last and rest >= processes
    return (rest // processes, True) if partial else (size, False)


def _of_retrained(cfg: dict[str, Any], section: DataSection, own: tuple[int, int, int]) -> dict[str, Any]:
    """Return the description of weights that are retrained: no published ones any more, for images as scored here."""
    size, stale = section.eval_image_size or section.image_size, {"tag"}
    if section.eval_crop_pct is not None or (size is not None and (size, size) != own[1:]):
        stale |= {key for key in cfg if key.startswith("test_")}  # for weights that were trained at another size
    kept = {key: value for key, value in cfg.items() if key not in stale}
    kept |= {} if section.eval_crop_pct is None else {"crop_pct": section.eval_crop_pct}
    return kept if size is None else kept | {"input_size": [own[0], size, size]}


def _other_range(section: DataSection, opened: OpenedModel) -> list[str]:
    """Return the note on a model that was trained on images scaled from other values."""
    before = opened.value_range
    if before is None or before == section.value_range:
        return []
    return [f"the model was trained with data.value_range={list(before)}, which this recipe does not say"]


def _move_out_of_the_file(module: torch.nn.Module) -> None:
    """Give each tensor memory of its own, and those that share it a common one.

    Read from a file, they lie where the file has them, and sums over memory that is aligned otherwise are rounded
    otherwise: a resumed run would drift away from one that was never stopped.
    """
    copies: dict[tuple[object, ...], torch.Tensor] = {}
    for tensor in (*module.parameters(), *module.buffers()):
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if place not in copies:
            copies[place] = tensor.detach().clone()
        tensor.data = copies[place]


def _new_head(opened: OpenedModel, classes: int) -> str:
    """Return how to train a model with other classes than the data has."""
    if not opened.has_replicas:
        return f"the same command with --num-classes {classes} gives it a new, untrained head"
    assert opened.manifest is not None
    base = quote(opened.manifest.base["source"])
    return f"graft its base anew, with a new, untrained head: spgsurgeon graft {base} --num-classes {classes} ..."


def _agrees(said: Any, grafted: Any) -> bool:
    """Return whether a setting is what was grafted; null leaves it open."""
    if isinstance(said, dict):
        return isinstance(grafted, dict) and all(_agrees(value, grafted.get(key)) for key, value in said.items())
    if isinstance(said, list) and isinstance(grafted, list):
        return len(said) == len(grafted) and all(map(_agrees, said, grafted))
    return said is None or bool(said == grafted)


def _check_agreement(recipe: Recipe, manifest: GraftManifest, model: str) -> None:
    """Raise UsageError if the recipe says of the replicas what the grafted folder contradicts."""
    asked, grafted = recipe.trp.document(), manifest.trp
    said = {key: value for key, value in asked.items() if key in recipe.trp.model_fields_set}
    if said.get("kind", grafted["kind"]) != grafted["kind"]:
        said = {"kind": said["kind"]}  # the settings of another kind are others too
    wrong = {key: value for key, value in said.items() if not _agrees(value, grafted.get(key))}
    if wrong:
        found = "; ".join(f"trp.{key} is {value}, grafted was {grafted.get(key)}" for key, value in wrong.items())
        own = " ".join(f"trp.{key}={grafted[key]}" for key in wrong if key in grafted)
        raise UsageError(
            f"the recipe contradicts {model}: {found}",
            hint=f"go by what was grafted: {own}; or give the base itself and let the recipe graft it",
        )
