"""From a path to the weights it means, and to what lies beside them. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from spgsurgeon.checkpoint import (
    AVERAGE,
    CONFIG,
    WEIGHTS,
    GraftManifest,
    Outline,
    best_of,
    kind_of,
    read_grafted_folder,
    read_json_object,
    read_manifest,
    read_outline,
    weights_file_of,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.loading.describing import Description, description_of, hub_config
from spgsurgeon.models import is_transformers_config, refuse_adapter

GRAPH = ".onnx"


@dataclass(frozen=True)
class Located:
    """The weights that a path means, as they lie on the disk, and the documents beside them.

    `folder` is where these lie; it is None for a file that stands alone, or carries its `config` itself.
    """

    source: str
    kind: Literal["file", "weights", "hub", "grafted", "run"]
    outline: Outline
    folder: Path | None = None
    config: dict[str, Any] | None = None
    manifest: GraftManifest | None = None
    notes: list[str] = field(default_factory=list)
    """Choices made on the user's behalf, to be said aloud."""

    @property
    def format(self) -> str:
        """The kind of folder, or the format of a file that stands alone."""
        return self.outline.format if self.kind in ("file", "weights") else self.kind

    @property
    def producer(self) -> str | None:
        """Who wrote it, as far as it shows: this package, transformers, Accelerate, a training script."""
        if self.manifest is not None:
            return "spgsurgeon"
        if self.config is not None and self.config.get("model_type") is not None:
            return "transformers"
        return "accelerate" if self.kind == "weights" else self.outline.producer

    @property
    def of_transformers(self) -> bool:
        """Whether these are the weights of one of transformers' own models, by the config.json beside them."""
        return is_transformers_config(self.config)

    def paths(self) -> list[Path]:
        """Return the input files and folders, which nothing may be written to."""
        return [*([self.folder] if self.folder and self.kind != "file" else []), self.outline.path]

    @property
    def described_in(self) -> str:
        """Where its config.json is, for messages."""
        return f"{self.folder}/{CONFIG}" if self.folder else f"the {CONFIG} in {self.outline.path}"


def locate(path: Path, weights: str | None = None, *, check: bool = True, described: bool = True) -> Located:
    """Return the weights that the file or folder `path` means (contract: "Naming a model").

    A file that stands alone is what the config.json beside it says, or that which the file carries, unless `described`
    is false: somebody says what it is.

    `weights` is `ema`, `raw`, the name of one set of several in a file, or None: the moving average where there is one,
    said in the notes. A run means its best checkpoint. `check` reads the weights of a grafted folder or a run once, to
    compare them with their hash. Raises what the readers of `checkpoint` raise.
    """
    if path.suffix == GRAPH and not path.is_dir():
        raise UsageError(
            f"{path} is an ONNX graph, which `eval` and `predict` take and nothing else does",
            hint="give the weights, or the folder that it was exported from",
            code="graph",
        )
    if not path.is_dir():
        outline = read_outline(path, weights)
        said = description_of(outline) if described else Description()
        located = Located(str(path), "file", outline, said.folder, said.config, notes=list(said.notes))
        return _with_note(located, weights)
    refuse_adapter({file.name for file in path.iterdir()}, str(path))
    kind = kind_of(path)
    if kind in ("grafted", "run"):
        return _locate_grafted(path, kind, weights, check)
    outline = read_outline(weights_file_of(path), weights)
    config = hub_config(read_json_object(path / CONFIG)) if kind == "hub" else None
    return _with_note(Located(str(path), kind, outline, path, config), weights)


def resolve_folder(folder: Path) -> Path:
    """Return the folder that holds the weights: for a run its best checkpoint, else the folder itself."""
    return best_of(folder) if kind_of(folder) == "run" else folder


def _locate_grafted(path: Path, kind: Literal["grafted", "run"], weights: str | None, check: bool) -> Located:
    if weights not in (None, "ema", "raw"):
        raise UsageError(f"{path} holds ema or raw weights, not {weights!r}", hint="leave --weights out")
    folder = resolve_folder(path)
    manifest = read_grafted_folder(folder).manifest if check else read_manifest(folder)
    average = folder / AVERAGE
    if weights == "ema" and not average.exists():
        raise UsageError(f"{folder} holds no moving average", hint="leave --weights out, or say --weights raw")
    use_average = average.exists() and weights != "raw"
    outline = read_outline(average if use_average else folder / WEIGHTS)
    outline = replace(outline, has_ema=average.exists(), weights="ema" if use_average else "raw")
    config = read_json_object(folder / CONFIG)
    return _with_note(Located(str(path), kind, outline, folder, config, manifest), weights)


def _with_note(located: Located, weights: str | None) -> Located:
    """Return it with what was chosen among several sets of weights, unless the user chose."""
    if weights is not None:
        return located
    outline = located.outline
    others = outline.sets_beside
    notes = ["moving-average weights (--weights raw takes the others)"] if outline.weights == "ema" else []
    if others:
        taken = (
            f"the weights taken, {'.'.join(outline.path_in_file)!r}" if outline.path_in_file else "the weights taken"
        )
        notes.append(
            f"beside {taken}, there are more with the model's keys: {', '.join(others)} (--weights {others[0]} takes "
            f"{'those' if len(others) == 1 else 'the first'})"
        )
    if outline.lists_beside:
        notes.append(
            f"not read: {', '.join(outline.lists_beside)}, tensors of the model's shapes without their keys, such as a "
            "moving average (to use it, copy it into the model with what made it, and save model.state_dict())"
        )
    return replace(located, notes=[*located.notes, *notes])
