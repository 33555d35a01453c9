"""From a path to the weights it means, and to what lies beside them. Nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from spgsurgeon.checkpoint.folders import (
    GraftManifest,
    best_of,
    kind_of,
    read_grafted_folder,
    read_json_object,
    read_manifest,
    weights_file_of,
)
from spgsurgeon.checkpoint.reading import Outline, read_outline
from spgsurgeon.errors import UsageError
from spgsurgeon.models.libraries.transformers_config import is_transformers_config, refuse_adapter

_AVERAGE = "ema.safetensors"


@dataclass(frozen=True)
class Located:
    """The weights that a path means, as they lie on the disk, and the documents beside them."""

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
        return [*([self.folder] if self.folder else []), self.outline.path]


def locate(path: Path, weights: str | None = None, *, check: bool = True) -> Located:
    """Return the weights that the file or folder `path` means (contract: "Naming a model").

    `weights` is `ema`, `raw`, the name of one set of several in a file, or None: the moving average where there is one,
    said in the notes. A run means its best checkpoint. `check` reads the weights of a grafted folder or a run once, to
    compare them with their hash. Raises what the readers of `checkpoint` raise.
    """
    if not path.is_dir():
        return _with_note(Located(str(path), "file", read_outline(path, weights)), weights)
    refuse_adapter({file.name for file in path.iterdir()}, str(path))
    kind = kind_of(path)
    if kind in ("grafted", "run"):
        return _locate_grafted(path, kind, weights, check)
    outline = read_outline(weights_file_of(path), weights)
    config = read_json_object(path / "config.json") if kind == "hub" else None
    return _with_note(Located(str(path), kind, outline, path, config), weights)


def resolve_folder(folder: Path) -> Path:
    """Return the folder that holds the weights: for a run its best checkpoint, else the folder itself."""
    return best_of(folder) if kind_of(folder) == "run" else folder


def _locate_grafted(path: Path, kind: Literal["grafted", "run"], weights: str | None, check: bool) -> Located:
    if weights not in (None, "ema", "raw"):
        raise UsageError(f"{path} holds ema or raw weights, not {weights!r}", hint="leave --weights out")
    folder = resolve_folder(path)
    manifest = read_grafted_folder(folder).manifest if check else read_manifest(folder)
    average = folder / _AVERAGE
    if weights == "ema" and not average.exists():
        raise UsageError(f"{folder} holds no moving average", hint="leave --weights out, or say --weights raw")
    use_average = average.exists() and weights != "raw"
    outline = read_outline(average if use_average else folder / "model.safetensors")
    outline = replace(outline, has_ema=average.exists(), weights="ema" if use_average else "raw")
    config = read_json_object(folder / "config.json")
    return _with_note(Located(str(path), kind, outline, folder, config, manifest), weights)


def _with_note(located: Located, weights: str | None) -> Located:
    if weights is not None or located.outline.weights != "ema":
        return located
    return replace(located, notes=["moving-average weights (--weights raw takes the others)"])
