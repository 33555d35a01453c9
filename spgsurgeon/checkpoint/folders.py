"""The folders on disk: grafted folders (written and read here), run folders and Hub folders (recognised here)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.reading import read_safetensors
from spgsurgeon.checkpoint.writing import write_json, write_safetensors
from spgsurgeon.errors import DamagedFileError, UsageError

FORMAT_VERSION = 1

FolderKind = Literal["grafted", "run", "hub"]

_MANIFEST = "graft.json"
_CONFIG = "config.json"
_BASE = "model.safetensors"
_TEMPORARY = "temporary.safetensors"
_REQUIRED = {
    "base": ("source", "library", "architecture", "num_classes", "model_args", "content_hash", "tensors", "layout"),
    "trp": ("kind",),
    "site": ("module",),
}


@dataclass(frozen=True, kw_only=True)
class GraftManifest:
    """`graft.json`: what was grafted onto what. Data only, all of it JSON."""

    format_version: int = FORMAT_VERSION
    package_version: str
    base: dict[str, Any]  # source, library, architecture, num_classes, model_args, content_hash, tensors, layout
    trp: dict[str, Any]  # kind, and that kind's settings, such as replicas and rate
    site: dict[str, Any]  # module, side, width: where the replicas attach
    temporary_parameters: int
    weights_hash: str = ""  # content hash of model.safetensors; base["content_hash"] stays that of the original
    temporary_hash: str = ""  # content hash of temporary.safetensors


@dataclass(frozen=True)
class GraftedFolder:
    """A grafted folder whose files are all there and match their hashes."""

    folder: Path
    manifest: GraftManifest
    config: dict[str, Any]

    @property
    def base_weights(self) -> Path:
        """The safetensors file with the base's own state dict."""
        return self.folder / _BASE

    @property
    def temporary_weights(self) -> Path:
        """The safetensors file with the replicas' state dict."""
        return self.folder / _TEMPORARY


def write_grafted_folder(
    folder: Path,
    *,
    base: Mapping[str, Tensor],
    temporary: Mapping[str, Tensor],
    config: Mapping[str, Any],
    manifest: GraftManifest,
) -> None:
    """Write the four files of a grafted folder into the existing `folder`; fills in the manifest's two file hashes."""
    write_safetensors(folder / _BASE, base)
    write_safetensors(folder / _TEMPORARY, temporary)
    write_json(folder / _CONFIG, config)
    hashed = replace(manifest, weights_hash=content_hash(base), temporary_hash=content_hash(temporary))
    write_json(folder / _MANIFEST, asdict(hashed))


def read_grafted_folder(folder: Path) -> GraftedFolder:
    """Return the grafted folder after checking that its files are there, readable and as the manifest hashed them.

    Raises UsageError where the folder is not a grafted one or a newer package wrote it, DamagedFileError naming the
    file that is missing or was changed.
    """
    manifest = read_manifest(folder)
    _check_weights(folder / _BASE, manifest.weights_hash)
    _check_weights(folder / _TEMPORARY, manifest.temporary_hash)
    return GraftedFolder(folder, manifest, read_json_object(folder / _CONFIG))


def read_manifest(folder: Path) -> GraftManifest:
    """Return the manifest of a grafted folder, without reading its weights."""
    path = folder / _MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder} is no grafted folder: it has no {_MANIFEST}", hint="make one with spgsurgeon graft")
    document = read_json_object(path)
    version = document.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise DamagedFileError(f"{path} is damaged: its format_version is {version!r}")
    if version > FORMAT_VERSION:
        raise UsageError(
            f"{path} has format version {version}, this package reads up to {FORMAT_VERSION}",
            hint=f"upgrade spgsurgeon (the folder was written by {document.get('package_version')})",
        )
    _check_fields(path, document)
    return GraftManifest(**{field.name: document[field.name] for field in fields(GraftManifest)})


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; DamagedFileError where it is missing or holds something else."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DamagedFileError(f"{path.parent} is damaged: {path.name} is missing") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: it is not JSON ({error})") from error
    if not isinstance(document, dict):
        raise DamagedFileError(f"{path} is damaged: it holds a {type(document).__name__}, not an object")
    return document


def kind_of(folder: Path) -> FolderKind:
    """Return what a folder is, by the file that marks it: graft.json, recipe.yaml (a run) or config.json (the Hub)."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is {'a file' if folder.exists() else 'missing'}, not a folder")
    marks: dict[str, FolderKind] = {_MANIFEST: "grafted", "recipe.yaml": "run", _CONFIG: "hub"}
    for mark, kind in marks.items():
        if (folder / mark).is_file():
            return kind
    raise UsageError(
        f"{folder} is no model folder: it has none of {', '.join(marks)}",
        hint="give a grafted folder, a run folder, or a Hub folder (config.json and model.safetensors)",
    )


def best_of(run: Path) -> Path:
    """Return the grafted folder of a run's best checkpoint, which the link `best` points to."""
    best = run / "best"
    if best.is_dir():
        return best.resolve()
    if best.is_symlink():
        raise DamagedFileError(f"{run} is damaged: its best checkpoint {best.readlink()} is missing")
    raise UsageError(f"{run} has no best checkpoint yet", hint="let the training reach its first evaluation")


def _check_fields(path: Path, document: Mapping[str, Any]) -> None:
    types = {"str": str, "int": int, "dict[str, Any]": dict}
    for field in fields(GraftManifest):
        if not isinstance(document.get(field.name), types[str(field.type)]):
            raise DamagedFileError(f"{path} is damaged: {field.name!r} is missing or no {field.type}")
    for section, keys in _REQUIRED.items():
        missing = [key for key in keys if key not in document[section]]
        if missing:
            raise DamagedFileError(f"{path} is damaged: {section!r} lacks {', '.join(missing)}")


def _check_weights(path: Path, expected: str) -> None:
    if not path.is_file():
        raise DamagedFileError(f"{path.parent} is damaged: {path.name} is missing")
    found = content_hash(read_safetensors(path)[0])
    if found != expected:
        raise DamagedFileError(
            f"{path} is not what {_MANIFEST} was written for: its hash is {found[:12]}, not {expected[:12]}",
            hint="graft or train again; edited weights can't be vouched for",
        )
