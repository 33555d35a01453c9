"""From a MODEL argument to a module that holds its weights, whatever form the argument takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint.folders import GraftManifest
from spgsurgeon.checkpoint.tensors import load_tensors
from spgsurgeon.errors import DamagedFileError, UsageError
from spgsurgeon.loading.locating import Located, locate
from spgsurgeon.loading.recognising import Recognition, recognize, refusal
from spgsurgeon.loading.transformers_folder import open_folder, read_folder
from spgsurgeon.models.libraries.building import (
    build,
    build_for_loading,
    depth_site_of,
    fit_identity,
    load_weights,
    sites_of,
    with_classes,
)
from spgsurgeon.models.libraries.identity import Identity, Task
from spgsurgeon.models.libraries.registry import NamedModel, library, parse_model, resolve_architecture
from spgsurgeon.models.libraries.transformers_config import with_dtype, with_labels
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.recognition.identification import Match
from spgsurgeon.models.shared_weights import saved_state
from spgsurgeon.models.sites.heads import DepthSite, Site

_LISTED = 8
_IGNORED = "ignored_mask_values"  # in config.json


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
        return self.manifest is not None and "replicas" in self.manifest.trp

    @property
    def preprocessing(self) -> Preprocessing:
        """How the model wants its pictures."""
        return library(self.identity.library).preprocessing(self.identity, self.module)

    @cached_property
    def sites(self) -> tuple[Site, ...]:
        """Where dropout replicas attach. Raises ArchitectureError for heads that are not supported."""
        return sites_of(self.identity, self.module)

    @cached_property
    def depth_site(self) -> DepthSite:
        """Where replicas of depth attach. Raises ArchitectureError for families that they are not known for."""
        return depth_site_of(self.identity, self.module)

    @property
    def task(self) -> Task:
        """What the model predicts: "classification" or "segmentation"."""
        return library(self.identity.library).task(self.identity.architecture)

    def config(self) -> dict[str, Any]:
        """Return the `config.json` that belongs beside these weights."""
        if self.config_document is not None:
            dtype = str(next(self.module.parameters()).dtype).removeprefix("torch.")
            return with_dtype(with_labels(self.config_document, self.label_names), dtype)
        config = library(self.identity.library).config(self.identity, self.module, self.label_names)
        return config | ({_IGNORED: list(self.ignored)} if self.ignored else {})

    def beside(self) -> dict[str, bytes]:
        """Return the companions by their names, as they are."""
        return {path.name: path.read_bytes() for path in self.companions}

    def paths(self) -> list[Path]:
        """Return the input files and folders, which nothing may be written to."""
        return self.located.paths() if self.located else []


def open_model(
    model: str,
    *,
    weights: str | None = None,
    arch: str | None = None,
    num_classes: int | None = None,
    random_seed: int | None = None,
    task: str | None = None,
) -> OpenedModel:
    """Return the model that `model` names (contract: "Naming a model").

    `weights` picks `ema` or `raw` where a file holds both (None: ema, said in the notes); `arch` says the architecture
    of weights that don't, where keys and shapes leave a choice; `num_classes` other than the model's gives it a new,
    untrained head; `random_seed` asks for random weights instead of a named model's pretrained ones. `task` is what a
    model of transformers is for, if its config.json says another or none: it then gets a new head, too.
    """
    named = parse_model(model)
    if isinstance(named, NamedModel):
        opened = _open_named(model, named, num_classes, random_seed)
    elif random_seed is not None:
        raise UsageError(f"random weights are for models by name; {model} has weights of its own")
    else:
        located = locate(named, weights)
        if located.of_transformers:
            return _open_transformers(located, arch, task, num_classes)
        opened = _open_located(located, arch)
    if task not in (None, opened.task):
        raise UsageError(
            f"{model} is for {opened.task}, not for {task}", hint="--task chooses the head of a transformers model"
        )
    if num_classes is None or num_classes == opened.identity.num_classes:
        return opened
    if opened.has_replicas:
        raise _too_late(opened.source, opened.identity.num_classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        module, identity = with_classes(opened.module, opened.identity, num_classes)
    older = f"instead of {opened.identity.num_classes}" if opened.identity.num_classes else "where there was none"
    note = f"new head for {num_classes} classes {older}: untrained"
    return replace(opened, module=module, identity=identity, label_names=None, ignored=(), notes=[*opened.notes, note])


def load(
    model: str | Path, *, weights: str | None = None, arch: str | None = None, num_classes: int | None = None
) -> nn.Module:
    """Return the base model that `model` names, in eval mode on the CPU; see `open_model` for the arguments."""
    return open_model(str(model), weights=weights, arch=arch, num_classes=num_classes).module


def _open_named(model: str, named: NamedModel, num_classes: int | None, random_seed: int | None) -> OpenedModel:
    known = library(named.library)
    if random_seed is None:
        module, identity = known.pretrained(named.architecture, named.tag)
        return OpenedModel(module.eval(), identity, model, "name")
    architecture = resolve_architecture(f"{named.library}/{named.architecture}")[1]
    classes = num_classes or known.default_classes(architecture)
    identity = Identity(named.library, architecture, classes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed)
        module = build(identity)
    return OpenedModel(module, identity, model, "name", notes=[f"random weights (seed {random_seed})"])


def _too_late(source: str, classes: int) -> UsageError:
    return UsageError(
        f"{source} is grafted with {classes} classes; its head can't be replaced now",
        hint="give --num-classes when grafting",
    )


def _open_transformers(located: Located, arch: str | None, task: str | None, num_classes: int | None) -> OpenedModel:
    if arch is not None:
        raise UsageError(f"--arch is for weights that don't say what they are; {located.source} has a config.json")
    folder = read_folder(located)
    made = open_folder(located, folder, task, num_classes, seed=0)
    opened = OpenedModel(
        module=made.module,
        identity=made.identity,
        source=located.source,
        format=located.format,
        located=located,
        label_names=made.labels,
        notes=[*located.notes, *made.notes],
        config_document=made.config,
        companions=folder.companions,
    )
    if opened.has_replicas and made.is_new:
        raise _too_late(located.source, folder.site.classes if folder.site else 0)
    return opened


def _open_located(located: Located, arch: str | None) -> OpenedModel:
    recognition = recognize(located, arch)
    tensors = load_tensors(recognition.entries)
    identity = _identity(located, recognition, tensors)
    module = build_for_loading(identity, tensors)
    notes = [*located.notes, *_left_out(recognition.match), *load_weights(module, tensors, identity.name)]
    return OpenedModel(
        module=module,
        identity=identity,
        source=located.source,
        format=located.format,
        located=replace(located, outline=replace(located.outline, prefixes=recognition.prefixes)),
        label_names=(located.config or {}).get("label_names"),
        ignored=_ignored(located),
        notes=notes,
    )


def _identity(located: Located, recognition: Recognition, tensors: Mapping[str, Tensor]) -> Identity:
    """Return what `config.json`, `--arch` or the file says the model is, else the only architecture that fits."""
    if located.config is not None:
        return library(located.config.get("library", "timm")).identity_from_config(located.config)
    match = recognition.match
    if recognition.said is None and match is None:
        raise refusal(located, recognition)
    name = match.entry.name if match is not None else str(recognition.said)
    owner, architecture = resolve_architecture(name)
    outline, says = located.outline, dict(located.outline.model_args)
    if outline.architecture is None or architecture != outline.architecture.partition(".")[0]:
        says = {key: value for key, value in says.items() if key == "num_classes"}  # the rest is of another model
    _, _, tag = (recognition.said or "").partition(".")
    identity = library(owner).identity_from_checkpoint(f"{architecture}.{tag}" if tag else architecture, says)
    return fit_identity(identity, tensors, match.classes if match else None)


def _ignored(located: Located) -> tuple[int, ...]:
    values = (located.config or {}).get(_IGNORED, [])
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise DamagedFileError(f"the config.json of {located.source} is damaged: {_IGNORED} is no list of numbers")
    return tuple(values)


def _left_out(match: Match | None) -> list[str]:
    """Return the note on tensors that lie beside the model: listed, never dropped in silence."""
    if match is None or not match.unexpected:
        return []
    listed = ", ".join(match.unexpected[:_LISTED])
    more = f" and {len(match.unexpected) - _LISTED} more" if len(match.unexpected) > _LISTED else ""
    return [f"left out, as they lie outside the model {match.prefix!r}: {listed}{more}"]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached: what is written and hashed. See `saved_state`."""
    return saved_state(module)


def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of tensors that hold a NaN or an infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
