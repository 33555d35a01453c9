"""From a MODEL argument to a module that holds its weights, whatever form the argument takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint.folders import GraftManifest, best_of, kind_of, read_grafted_folder, read_json_object
from spgsurgeon.checkpoint.reading import Checkpoint, read_checkpoint
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.building import build, build_for_loading, fit_identity, load_weights, site_of, with_classes
from spgsurgeon.models.identity import Identity
from spgsurgeon.models.libraries import NamedModel, library, parse_model, resolve_architecture
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.models.sites import Site

_HUB_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class OpenedModel:
    """A base model in memory (eval mode, CPU) and everything known about where it came from."""

    module: nn.Module
    identity: Identity
    source: str
    format: str
    checkpoint: Checkpoint | None = None
    manifest: GraftManifest | None = None
    folder: Path | None = None
    label_names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    """Choices made on the user's behalf, to be said aloud."""

    @property
    def has_replicas(self) -> bool:
        """Whether these weights come with replicas; a plain retraining's do not."""
        return self.manifest is not None and self.manifest.trp["kind"] != "none"

    @property
    def preprocessing(self) -> Preprocessing:
        """How the model wants its pictures."""
        return library(self.identity.library).preprocessing(self.identity, self.module)

    @property
    def site(self) -> Site:
        """Where dropout replicas attach. Raises ArchitectureError for heads that are not supported."""
        return site_of(self.identity, self.module)

    def config(self) -> dict[str, Any]:
        """Return the `config.json` that belongs beside these weights."""
        return library(self.identity.library).config(self.identity, self.module, self.label_names)

    def paths(self) -> list[Path]:
        """Return the input files and folders, which nothing may be written to."""
        read = [self.folder] if self.folder else []
        return read + ([self.checkpoint.path] if self.checkpoint else [])


def open_model(
    model: str,
    *,
    weights: str | None = None,
    arch: str | None = None,
    num_classes: int | None = None,
    random_seed: int | None = None,
) -> OpenedModel:
    """Return the model that `model` names (contract: "Naming a model").

    `weights` picks `ema` or `raw` where a file holds both (None: ema, said in the notes); `arch` says the architecture
    of a file that doesn't; `num_classes` other than the model's gives it a new, untrained head; `random_seed` asks for
    random weights instead of a named model's pretrained ones.
    """
    named = parse_model(model)
    if isinstance(named, NamedModel):
        opened = _open_named(model, named, num_classes, random_seed)
    elif random_seed is not None:
        raise UsageError(f"random weights are for models by name; {model} has weights of its own")
    else:
        opened = _open_folder(named, weights, arch) if named.is_dir() else _open_file(named, weights, arch)
    if num_classes is None or num_classes == opened.identity.num_classes:
        return opened
    if opened.has_replicas:
        raise UsageError(
            f"{model} is grafted with {opened.identity.num_classes} classes; its head can't be replaced now",
            hint="give --num-classes when grafting",
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(random_seed or 0)
        module, identity = with_classes(opened.module, opened.identity, num_classes)
    note = f"new head for {num_classes} classes instead of {opened.identity.num_classes}: untrained"
    return replace(opened, module=module, identity=identity, label_names=None, notes=[*opened.notes, note])


def load(
    model: str | Path, *, weights: str | None = None, arch: str | None = None, num_classes: int | None = None
) -> nn.Module:
    """Return the base model that `model` names, in eval mode on the CPU; see `open_model` for the arguments."""
    return open_model(str(model), weights=weights, arch=arch, num_classes=num_classes).module


def resolve_folder(folder: Path) -> Path:
    """Return the folder that holds the weights: for a run its best checkpoint, else the folder itself."""
    return best_of(folder) if kind_of(folder) == "run" else folder


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


def _open_file(path: Path, weights: str | None, arch: str | None) -> OpenedModel:
    checkpoint = read_checkpoint(path, weights)
    identity = fit_identity(_identity_of(checkpoint, arch), checkpoint.tensors)
    return _assemble(checkpoint, identity, str(path), folder=None)


def _open_folder(folder: Path, weights: str | None, arch: str | None) -> OpenedModel:
    if arch is not None:
        raise UsageError(f"--arch is for files that don't say what they are; {folder} has a config.json")
    kind = kind_of(folder)
    if kind == "hub":
        return _open_hub(folder, weights)
    given, folder = folder, resolve_folder(folder)
    grafted = read_grafted_folder(folder)
    averaged = folder / "ema.safetensors"
    if weights == "ema" and not averaged.exists():
        raise UsageError(f"{folder} holds no moving average", hint="leave --weights out, or say --weights raw")
    use_average = averaged.exists() and weights != "raw"
    checkpoint = read_checkpoint(averaged if use_average else grafted.base_weights)
    opened = _assemble(checkpoint, _identity_from_config(grafted.config), str(given), folder)
    notes = ["moving-average weights (--weights raw takes the others)"] if use_average and weights is None else []
    return replace(
        opened, format=kind, manifest=grafted.manifest, label_names=grafted.config.get("label_names"), notes=notes
    )


def _open_hub(folder: Path, weights: str | None) -> OpenedModel:
    file = next((folder / name for name in _HUB_WEIGHTS if (folder / name).is_file()), None)
    if file is None:
        raise UsageError(f"{folder} has a config.json but no {' or '.join(_HUB_WEIGHTS)}")
    config = read_json_object(folder / "config.json")
    checkpoint = read_checkpoint(file, weights)
    opened = _assemble(checkpoint, _identity_from_config(config), str(folder), folder)
    return replace(opened, format="hub", label_names=config.get("label_names"))


def _assemble(checkpoint: Checkpoint, identity: Identity, source: str, folder: Path | None) -> OpenedModel:
    module = build_for_loading(identity)
    load_weights(module, checkpoint.tensors, identity.name)
    notes = []
    if checkpoint.has_ema and checkpoint.weights == "ema":
        notes.append("moving-average weights (--weights raw takes the others)")
    return OpenedModel(module, identity, source, checkpoint.format, checkpoint, folder=folder, notes=notes)


def _identity_of(checkpoint: Checkpoint, arch: str | None) -> Identity:
    """Return what `--arch`, else the file itself, says the architecture is."""
    recorded = checkpoint.architecture
    if arch is None and recorded is None:
        folder = checkpoint.path.parent
        beside = f"; or give its folder {folder}, which has a config.json" if (folder / "config.json").is_file() else ""
        raise ArchitectureError(
            f"{checkpoint.path.name} holds {len(checkpoint.tensors)} tensors but does not say of which architecture",
            hint="say it: --arch timm/NAME or --arch torchvision/NAME" + beside,
        )
    name = arch or (f"{checkpoint.library}/{recorded}" if checkpoint.library else str(recorded))
    owner, architecture = resolve_architecture(name)
    says = checkpoint.model_args
    if recorded is None or architecture != recorded.partition(".")[0]:
        says = {key: value for key, value in says.items() if key == "num_classes"}  # the rest is of another model
    _, _, tag = name.partition(".")
    return library(owner).identity_from_checkpoint(f"{architecture}.{tag}" if tag else architecture, says)


def _identity_from_config(config: Mapping[str, Any]) -> Identity:
    owner = str(config.get("library", "timm"))
    if owner not in ("timm", "torchvision"):
        raise ArchitectureError(f"config.json is of the library {owner!r}; timm and torchvision are supported")
    return library(owner).identity_from_config(config)


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached: what is written and hashed."""
    return {key: value.detach() for key, value in module.state_dict().items()}
