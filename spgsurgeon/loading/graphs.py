"""An ONNX file as a model that can be scored: what it says of itself, what lies beside it, and what somebody says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import CONFIG, json_object, naming, read_json_object
from spgsurgeon.errors import DamagedFileError, UsageError
from spgsurgeon.exporting import ARCHITECTURE, CLASS_NAMES, DESCRIPTION, PREPROCESSING, OnnxModel
from spgsurgeon.loading.describing import hub_config, named_in
from spgsurgeon.loading.opened import OpenedModel
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.loading.said_of_data import MAP, RANGE, VALUES, ignored_in, known_table, label_names_in, said_of_data
from spgsurgeon.models import (
    Identity,
    Preprocessing,
    SamplePreprocessing,
    build,
    is_transformers_config,
    known_preprocessing,
    library,
    resolve_architecture,
)
from spgsurgeon.recipe import known_mask_values, known_range

_ON_THE_CPU = "ONNX Runtime computes it on the CPU, in the precision of the file"


def open_graph(path: Path, request: ModelRequest) -> OpenedModel:
    """Return the model in an ONNX file. What it does not say itself is that of `--arch`, or of the config.json beside.

    Raises UsageError if it isn't known how its samples are prepared, DamagedFileError for what can't be so.
    """
    for name, value in {"--weights": request.weights, "--map-keys": request.map_keys}.items():
        if value is not None:
            raise UsageError(f"{name} is for files of weights, and {path} is a graph", hint="leave it out")
    graph = OnnxModel(path)
    with naming(path):
        config = _config_of(graph)
    identity = _identity_of(graph, request, config)
    prepared, notes = _prepared(graph, identity, request)
    source = str(path)
    return OpenedModel(
        module=graph,
        identity=identity,
        source=source,
        format="onnx",
        label_names=_names_in(graph, config, identity.num_classes),
        ignored=ignored_in(config, source),
        mask_values=said_of_data(config, source, VALUES, known_mask_values) or {},
        value_range=said_of_data(config, source, RANGE, known_range),
        class_map=said_of_data(config, source, MAP, known_table) or {},
        notes=[*notes, _ON_THE_CPU],
        config_document=config,
        prepared=prepared,
    )


def _config_of(graph: OnnxModel) -> dict[str, Any]:
    """Return the config.json that a graph carries, or the one beside it; nothing if there is none."""
    beside = graph.path.parent / CONFIG
    if DESCRIPTION in graph.metadata:
        return json_object(graph.metadata[DESCRIPTION])
    return hub_config(read_json_object(beside)) if beside.is_file() else {}


def _identity_of(graph: OnnxModel, request: ModelRequest, config: dict[str, Any]) -> Identity:
    name = request.arch or graph.metadata.get(ARCHITECTURE) or (named_in(config) if config else None)
    if name is None:
        raise UsageError(
            f"{graph.path} does not say which model it is, nor how its samples are prepared",
            hint=f"--arch timm/NAME (or torchvision/NAME) says both; so does a {CONFIG} beside it",
            code="unknown-graph",
        )
    owner, _, architecture = name.partition("/")
    if owner != "transformers":
        owner, architecture = resolve_architecture(name)
    library(owner).task(architecture)  # raises for an unknown one
    cfg = {} if request.arch or is_transformers_config(config) else dict(config.get("pretrained_cfg") or {})
    return Identity(owner, architecture, graph.classes, pretrained_cfg=cfg or None)


def _prepared(graph: OnnxModel, identity: Identity, request: ModelRequest) -> tuple[SamplePreprocessing, list[str]]:
    """Return how samples are prepared, and a note if that is not what the graph itself says."""
    said = graph.metadata.get(PREPROCESSING)
    if said is not None and request.arch is None:
        with naming(graph.path):
            document = json_object(said)
        return known_preprocessing(document, graph.path.parent, str(graph.path)), []
    if identity.library == "transformers":
        raise UsageError(
            f"{graph.path} does not say how its samples are prepared",
            hint="score the folder that it was exported from, or export it again: spgsurgeon strip --export onnx",
            code="unknown-graph",
        )
    own = library(identity.library).preprocessing(identity, build(identity))
    note = f"images are prepared as for {identity.name}, which the graph does not say"
    assert isinstance(own, Preprocessing), "both libraries have images alone"
    size = graph.image_size
    return (replace(own, input_size=(own.input_size[0], *size)) if size else own), [note]


def _names_in(graph: OnnxModel, config: dict[str, Any], classes: int) -> list[str] | None:
    """Return the names of the classes by label; None if there are none, or others than the graph has."""
    said = graph.metadata.get(CLASS_NAMES)
    if said is None:
        return label_names_in(config, classes)
    try:
        names = json.loads(said)
    except (ValueError, RecursionError):
        names = None
    if not isinstance(names, list) or len(names) != classes or not all(isinstance(name, str) for name in names):
        raise DamagedFileError(f"{graph.path} is damaged: {CLASS_NAMES} is not a list of {classes} names")
    return names
