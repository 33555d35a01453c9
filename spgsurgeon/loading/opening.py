"""From a MODEL argument to a module that holds its weights, whatever form the argument takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import CONFIG, GraftManifest, load_tensors
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.loading.locating import Located, locate
from spgsurgeon.loading.recognising import Recognition, recognize, refusal
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.loading.transformers_folder import open_folder, read_folder
from spgsurgeon.models import (
    DepthSite,
    Identity,
    Match,
    NamedModel,
    Preprocessing,
    Site,
    TextPreprocessing,
    build,
    build_for_loading,
    depth_site_of,
    fit_identity,
    library,
    load_weights,
    parse_model,
    resolve_architecture,
    saved_state,
    sites_of,
    with_classes,
    with_dtype,
    with_labels,
)
from spgsurgeon.recipe import known_class_map, known_mask_values, known_range
from spgsurgeon.replicas.kinds import CONTROLS
from spgsurgeon.tasks import Task, task_named

Read = TypeVar("Read")
_LISTED = 8
_IGNORED, _VALUES, _RANGE = "ignored_mask_values", "mask_values", "value_range"  # in config.json
_MAP = "class_map"


@dataclass(frozen=True)
class OpenedModel:
    """A base model in memory (eval mode, CPU) and everything known about where it came from."""

    module: nn.Module
    identity: Identity
    source: str
    format: str
    located: Located | None = None
    label_names: list[str] | None = None
    ignored: tuple[int, ...] = ()
    """Mask values that it was trained without, and that are not scored."""
    mask_values: dict[int, int] = field(default_factory=dict)
    """The class that mask values stood for in training, of those that are not class numbers."""
    value_range: tuple[float, float] | None = None
    """The values that were black and white in images with more than 8 bits of grey, where training said them."""
    class_map: dict[str, str] = field(default_factory=dict)
    """What it calls the classes of the data that it was trained on, where these had other names there."""
    head_is_new: bool = False
    """Whether its head is untrained, so that its classes have no order yet."""
    hub_id: str | None = None
    """The Hub's name of the weights that these are, or were but for the head."""
    notes: list[str] = field(default_factory=list)
    """Choices made on the user's behalf, to be said aloud."""
    config_document: dict[str, Any] | None = None
    """The `config.json` that belongs beside these weights, where it is the library's own and not made here."""
    companions: tuple[Path, ...] = ()
    """Files that go with the weights unchanged, such as a tokenizer's."""

    @property
    def manifest(self) -> GraftManifest | None:
        """What was grafted, where the weights come from a grafted folder or a run."""
        return self.located.manifest if self.located else None

    @property
    def folder(self) -> Path | None:
        """The folder that holds the weights and what lies beside them."""
        return self.located.folder if self.located else None

    @property
    def has_replicas(self) -> bool:
        """Whether these weights come with replicas; those of a control do not."""
        return self.manifest is not None and self.manifest.trp["kind"] not in CONTROLS

    @cached_property
    def preprocessing(self) -> Preprocessing | TextPreprocessing:
        """How the model wants its samples."""
        return library(self.identity.library).preprocessing(self.identity, self.module, self.companions)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Where dropout replicas attach. Raises ArchitectureError for heads that are not supported."""
        return sites_of(self.identity, self.module)

    @cached_property
    def depth_site(self) -> DepthSite:
        """Where replicas of depth attach. Raises ArchitectureError for families that they are not known for."""
        return depth_site_of(self.identity, self.module)

    @property
    def task_name(self) -> str:
        """What the model predicts, by its name."""
        return library(self.identity.library).task(self.identity.architecture)

    @property
    def task(self) -> Task:
        """What the model predicts. Raises UsageError for what can't be trained or scored here."""
        return task_named(self.task_name)

    def config(self) -> dict[str, Any]:
        """Return the `config.json` that belongs beside these weights."""
        if self.config_document is not None:
            dtype = str(next(self.module.parameters()).dtype).removeprefix("torch.")
            return with_dtype(with_labels(self.config_document, self.label_names), dtype)
        config = library(self.identity.library).config(self.identity, self.module, self.label_names)
        said = {
            _IGNORED: list(self.ignored),
            _VALUES: {str(value): label for value, label in self.mask_values.items()},
            _RANGE: list(self.value_range or ()),
            _MAP: self.class_map,
        }
        return config | {key: value for key, value in said.items() if value}

    def beside(self) -> dict[str, bytes]:
        """Return the companions by their names, as they are."""
        return {path.name: path.read_bytes() for path in self.companions}

    def paths(self) -> list[Path]:
        """Return the input files and folders, which nothing may be written to."""
        return self.located.paths() if self.located else []


def open_model(request: ModelRequest) -> OpenedModel:
    """Return the model that is asked for, in eval mode on the CPU; what was chosen on the way is in its notes."""
    named = parse_model(request.model)
    if isinstance(named, NamedModel):
        if request.image_size is not None:
            raise _size_is_known(request.model)
        opened = _open_named(request, named)
    elif request.random_seed is not None:
        raise UsageError(f"random weights are for models by name; {request.model} has weights of its own")
    else:
        located = locate(named, request.weights)
        if located.of_transformers:
            return _open_transformers(located, request)
        opened = _open_located(located, request.arch, request.image_size)
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
    note = f"new head for {request.num_classes} classes {older}: untrained"
    return replace(
        opened,
        module=module,
        identity=identity,
        label_names=None,
        ignored=(),
        mask_values={},
        class_map={},
        head_is_new=True,
        notes=[*opened.notes, note],
    )


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
        head_is_new=made.is_new,
        notes=[*located.notes, *made.notes],
        config_document=made.config,
        companions=folder.companions,
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
    note = f"random weights (seed {random_seed})"
    return OpenedModel(module, identity, model, "name", head_is_new=True, notes=[note])


def _open_located(located: Located, arch: str | None, image_size: tuple[int, int] | None) -> OpenedModel:
    recognition = recognize(located, arch)
    tensors = load_tensors(recognition.entries)
    identity, inferred = _identity(located, recognition, tensors, image_size)
    module = build_for_loading(identity, tensors)
    notes = [*located.notes, *inferred, *_left_out(recognition.match), *load_weights(module, tensors, identity.name)]
    return OpenedModel(
        module=module,
        identity=identity,
        source=located.source,
        format=located.format,
        located=replace(located, outline=replace(located.outline, prefixes=recognition.prefixes)),
        label_names=_label_names(located, identity),
        ignored=_ignored(located),
        mask_values=_said_of_data(located, _VALUES, known_mask_values) or {},
        value_range=_said_of_data(located, _RANGE, known_range),
        class_map=_said_of_data(located, _MAP, _known_table) or {},
        notes=notes,
    )


def _identity(
    located: Located,
    recognition: Recognition,
    tensors: Mapping[str, Tensor],
    image_size: tuple[int, int] | None,
) -> tuple[Identity, list[str]]:
    """Return what `config.json`, `--arch` or the file says the model is, else the only architecture that fits.

    With it comes the note on an image size that the weights' shapes leave a choice of.
    """
    if located.config is not None:
        if image_size is not None:
            raise _size_is_known(located.source)
        return library(located.config.get("library", "timm")).identity_from_config(located.config), []
    match = recognition.match
    if recognition.said is None and match is None:
        raise refusal(located, recognition)
    name = match.entry.name if match is not None else str(recognition.said)
    owner, architecture = resolve_architecture(name)
    outline, says = located.outline, dict(located.outline.model_args)
    if outline.architecture is None or architecture != outline.architecture.partition(".")[0]:
        says = {key: value for key, value in says.items() if key == "num_classes"}  # the rest is of another model
    if image_size is not None:
        if owner == "torchvision":  # whose transformers are square: their positions tell
            raise _size_is_known(f"torchvision's {architecture}")
        says = _at_size(says, image_size)
    _, _, tag = (recognition.said or "").partition(".")
    identity = library(owner).identity_from_checkpoint(f"{architecture}.{tag}" if tag else architecture, says)
    fitted = fit_identity(identity, tensors, match.classes if match else None)
    return fitted, _inferred_size(identity, fitted)


def _at_size(says: dict[str, Any], image_size: tuple[int, int]) -> dict[str, Any]:
    """Return the arguments that a training script would have recorded for images of (height, width) pixels."""
    further = {key: value for key, value in (says.get("model_kwargs") or {}).items() if key != "img_size"}
    others = {key: value for key, value in says.items() if key not in ("input_size", "model_kwargs")}
    return others | {"img_size": list(image_size)} | ({"model_kwargs": further} if further else {})


def _inferred_size(asked: Identity, fitted: Identity) -> list[str]:
    """Return the note on an image size that nobody gave and the number of positions leaves open."""
    name = "image_size" if fitted.library == "torchvision" else "img_size"
    size = fitted.model_args.get(name)
    if size is None or name in asked.model_args:
        return []
    other = "" if fitted.library == "torchvision" else " (--image-size HxW gives another with as many)"
    return [f"the image size is inferred from the number of positions, as a square: {size} x {size} pixels{other}"]


def _size_is_known(source: str) -> UsageError:
    return UsageError(
        f"--image-size is for the weights of a bare file; {source} says its own",
        hint="leave --image-size out",
        code="image-size-known",
    )


def _label_names(located: Located, identity: Identity) -> list[str] | None:
    """Return the names of the classes by label; timm may have the name of a data set in their place."""
    config = located.config or {}
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    return names if isinstance(names, list) and len(names) == identity.num_classes else None


def _ignored(located: Located) -> tuple[int, ...]:
    values = (located.config or {}).get(_IGNORED, [])
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise DamagedFileError(f"the {CONFIG} of {located.source} is damaged: {_IGNORED} is no list of numbers")
    return tuple(values)


def _known_table(value: Any) -> dict[str, str] | None:
    found = known_class_map(value)
    if isinstance(found, str):
        raise ValueError("a config.json names no file")
    return found


def _said_of_data(located: Located, key: str, known: Callable[[Any], Read | None]) -> Read | None:
    """Return what the config.json says of the data that the weights were trained on, checked as a recipe's is."""
    try:
        return known((located.config or {}).get(key))
    except ValueError as error:
        raise DamagedFileError(f"the {CONFIG} of {located.source} is damaged: {key}: {error}") from error


def _left_out(match: Match | None) -> list[str]:
    """Return the note on tensors that lie beside the model: listed, never dropped in silence."""
    if match is None or not match.unexpected:
        return []
    listed = ", ".join(match.unexpected[:_LISTED])
    more = f" and {len(match.unexpected) - _LISTED} more" if len(match.unexpected) > _LISTED else ""
    return [f"left out, as they lie outside the model {match.prefix!r}: {listed}{more}"]


def in_float32(opened: OpenedModel, done: str) -> OpenedModel:
    """Return the model with float32 weights, which images are too; a note says what is `done` so.

    Updates of half-precision weights would round to nothing.
    """
    kinds = {str(p.dtype).removeprefix("torch.") for p in opened.module.parameters()} - {"float32"}
    opened.module.float()
    note = f"{', '.join(sorted(kinds))} weights: {done} as float32"
    return replace(opened, notes=[*opened.notes, note]) if kinds else opened


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached: what is written and hashed. See `saved_state`."""
    return saved_state(module)


def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of tensors that hold a NaN or an infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]


def refuse_unsound(state: Mapping[str, Tensor]) -> None:
    """Raise SurgeonError naming the tensors that hold NaN or infinity, or a running variance below zero."""
    faults = dict.fromkeys(non_finite(state), "NaN or infinity")
    variances = (key for key in state if key.rpartition(".")[2] == "running_var" and key not in faults)
    faults |= {key: "a variance below zero" for key in variances if (state[key] < 0).any()}
    if faults:
        named = "; ".join(f"{key} holds {fault}" for key, fault in list(faults.items())[:_LISTED])
        more = f" and {len(faults) - _LISTED} more" if len(faults) > _LISTED else ""
        raise SurgeonError(
            f"the weights can't be scored or retrained: {named}{more}",
            hint="was the checkpoint written by a run that diverged? take an earlier one",
            code="unsound-weights",
            tensors=list(faults),
        )
