"""From a MODEL argument to a module that holds its weights, whatever form the argument takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import UsageError
from spgsurgeon.loading.filling import filled_model, keys_are_known
from spgsurgeon.loading.graphs import open_graph
from spgsurgeon.loading.hub import folder_on_hub
from spgsurgeon.loading.identifying import size_is_known
from spgsurgeon.loading.locating import GRAPH, Located, locate
from spgsurgeon.loading.opened import OpenedModel
from spgsurgeon.loading.recognising import recognize
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.loading.said_of_data import (
    EVERYTHING,
    MAP,
    RANGE,
    UNTRAINED,
    VALUES,
    ignored_in,
    known_table,
    label_names_in,
    said_of_data,
    untrained_in,
)
from spgsurgeon.loading.transformers_folder import open_folder, read_folder
from spgsurgeon.models import (
    Identity,
    Match,
    NamedModel,
    build,
    library,
    parse_model,
    resolve_architecture,
    with_classes,
)
from spgsurgeon.recipe import known_mask_values, known_range

_LISTED = 8


def open_model(request: ModelRequest) -> OpenedModel:
    """Return the model that is asked for, in eval mode on the CPU; what was chosen on the way is in its notes."""
    named, hub_id = parse_model(request.model), None
    if isinstance(named, NamedModel) and (folder := folder_on_hub(named)) is not None:
        named, hub_id = folder, "/".join(folder.parents[1].name.split("--")[1:])
    if isinstance(named, NamedModel):
        if request.image_size is not None:
            raise size_is_known(request.model)
        if request.map_keys is not None:
            raise keys_are_known(request.model)
        opened = _open_named(request, named)
    elif request.random_seed is not None:
        raise UsageError(f"random weights are for models by name; {request.model} has weights of its own")
    elif request.graphs and named.suffix == GRAPH:
        opened = open_graph(named, request)
    else:
        located = locate(named, request.weights, described=request.arch is None)
        if located.of_transformers:
            opened = _open_transformers(located, request)
            return replace(opened, hub_id=hub_id, source=request.model) if hub_id else opened
        opened = _open_located(located, request)
    if request.task not in (None, opened.task_name):
        raise UsageError(
            f"{request.model} is for {opened.task_name}, not for {request.task}",
            hint="--task chooses the head of a model of transformers",
        )
    if request.num_classes in (None, opened.identity.num_classes):
        return opened
    return _with_new_head(opened, request)


def load(
    model: str | Path, *, weights: str | None = None, arch: str | None = None, num_classes: int | None = None
) -> nn.Module:
    """Return the base model that `model` names, in eval mode on the CPU; see `ModelRequest` for the arguments."""
    return open_model(ModelRequest(str(model), weights, arch, num_classes)).module


def _with_new_head(opened: OpenedModel, request: ModelRequest) -> OpenedModel:
    """Return the model with an untrained head for `num_classes`. Raises UsageError for a grafted one."""
    assert request.num_classes is not None
    own = opened.identity.num_classes
    if opened.has_replicas:
        raise _too_late(request.model, own)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(request.random_seed or 0)
        module, identity = with_classes(opened.module, opened.identity, request.num_classes)
    older = f"instead of {own}" if own else "as there was none"
    note = f"new head for {request.num_classes} classes {older}: untrained, its logits start near zero"
    return replace(
        opened,
        untrained=EVERYTHING if opened.untrained == EVERYTHING else _new_in(module, opened.module),
        module=module,
        identity=identity,
        label_names=None,
        ignored=(),
        mask_values={},
        class_map={},
        notes=[*opened.notes, note],
    )


def _new_in(module: nn.Module, older: nn.Module) -> tuple[str, ...]:
    """Return the parameters that another module lacks, or has in another shape."""
    before = dict(older.named_parameters())
    return tuple(name for name, p in module.named_parameters() if name not in before or before[name].shape != p.shape)


def _too_late(model: str, classes: int) -> UsageError:
    return UsageError(
        f"{model} is grafted with {classes} classes; its head can't be replaced now",
        hint="give --num-classes when grafting",
    )


def _open_transformers(located: Located, request: ModelRequest) -> OpenedModel:
    if request.arch is not None:
        raise UsageError(f"--arch is for weights that don't say what they are; {located.source} has a {CONFIG}")
    if request.image_size is not None:
        raise UsageError(f"--image-size is for weights that don't say it; {located.source} has a {CONFIG}")
    folder = read_folder(located)
    made = open_folder(located, folder, request.task, request.num_classes, seed=0)
    opened = OpenedModel(
        module=made.module,
        identity=made.identity,
        source=located.source,
        format=located.format,
        located=located,
        label_names=made.labels,
        notes=[*located.notes, *made.notes],
        config_document={key: value for key, value in made.config.items() if key != UNTRAINED},
        companions=folder.companions,
        untrained=made.new or untrained_in(located),
    )
    if opened.has_replicas and made.is_new:
        raise _too_late(request.model, folder.site.classes if folder.site else 0)
    return opened


def _open_named(request: ModelRequest, named: NamedModel) -> OpenedModel:
    model, known, random_seed = request.model, library(named.library), request.random_seed
    if random_seed is None:
        module, identity = known.pretrained(named.architecture, named.tag)
        hub_id = known.hub_id(named.architecture, identity)
        return OpenedModel(module.eval(), identity, model, "name", hub_id=hub_id)
    architecture = resolve_architecture(f"{named.library}/{named.architecture}")[1]
    classes = request.num_classes or known.default_classes(architecture)
    identity = Identity(named.library, architecture, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        module = build(identity)
    notes = [f"random weights (seed {random_seed})"]
    return OpenedModel(module, identity, model, "name", notes=notes, untrained=EVERYTHING)


def _open_located(located: Located, request: ModelRequest) -> OpenedModel:
    recognition = recognize(located, request.arch)
    filled = filled_model(located, recognition, request)
    config, source = located.config or {}, located.source
    return OpenedModel(
        module=filled.module,
        identity=filled.identity,
        source=located.source,
        format=located.format,
        located=replace(located, outline=replace(located.outline, prefixes=recognition.prefixes)),
        label_names=label_names_in(config, filled.identity.num_classes),
        ignored=ignored_in(config, source),
        mask_values=said_of_data(config, source, VALUES, known_mask_values) or {},
        value_range=said_of_data(config, source, RANGE, known_range),
        class_map=said_of_data(config, source, MAP, known_table) or {},
        notes=[*located.notes, *recognition.notes, *_left_out(recognition.match), *filled.notes],
        untrained=untrained_in(located),
    )


def _left_out(match: Match | None) -> list[str]:
    """Return the note on tensors that lie beside the model: listed, never dropped in silence."""
    if match is None or not match.unexpected:
        return []
    listed = ", ".join(match.unexpected[:_LISTED])
    more = f" and {len(match.unexpected) - _LISTED} more" if len(match.unexpected) > _LISTED else ""
    return [f"left out, as they lie outside the model {match.prefix!r}: {listed}{more}"]
