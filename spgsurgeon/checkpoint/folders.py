"""The folders on disk: grafted folders (written and read here), run, Hub and weights folders (recognised here).

Reading needs neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from spgsurgeon.checkpoint.containers.headers import read_header
from spgsurgeon.checkpoint.containers.objects import LONGEST_DOCUMENT, json_object
from spgsurgeon.checkpoint.containers.shards import INDEX_SUFFIX
from spgsurgeon.checkpoint.layout import AVERAGE, CONFIG, MANIFEST, RUN_BEST, RUN_RECIPE, STATE, TEMPORARY, WEIGHTS
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError, naming
from spgsurgeon.checkpoint.sealing import check_seal, document_hash, sealed
from spgsurgeon.checkpoint.values import content_hash_of
from spgsurgeon.errors import DamagedFileError, UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMAT_VERSION = 1

FolderKind = Literal["grafted", "run", "hub", "weights"]

_FILES = "files"  # in a manifest's base: the files beside the weights, each with its hash
# What save_pretrained, Accelerate and the Hub call a model's weights, the safe formats first.
_ALL_WEIGHTS = tuple(name + index for name in (WEIGHTS, "pytorch_model.bin") for index in ("", INDEX_SUFFIX))
# What is in a folder that a sharded training saved, and what joins it.
_SHARDED = {
    "pytorch_model_fsdp_*": "accelerate merge-weights FOLDER OUTPUT",
    "*.distcp": "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
    ".metadata": "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pt",
    "*zero_pp_rank_*": "python zero_to_fp32.py . OUTPUT, in the folder above (DeepSpeed writes the script there)",
    "zero_to_fp32.py": "python zero_to_fp32.py . OUTPUT, in this folder",
    "global_step*/*zero_pp_rank_*": "python zero_to_fp32.py . OUTPUT, in this folder",
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
    config_hash: str = ""  # document hash of config.json


@dataclass(frozen=True)
class GraftedFolder:
    """A grafted folder whose files are all there and match their hashes."""

    folder: Path
    manifest: GraftManifest
    config: dict[str, Any]

    @property
    def base_weights(self) -> Path:
        """The safetensors file with the base's own state dict."""
        return self.folder / WEIGHTS

    @property
    def temporary_weights(self) -> Path:
        """The safetensors file with the replicas' state dict."""
        return self.folder / TEMPORARY


def write_grafted_folder(
    folder: Path,
    *,
    base: Mapping[str, Tensor],
    temporary: Mapping[str, Tensor],
    config: Mapping[str, Any],
    manifest: GraftManifest,
    companions: Mapping[str, bytes] | None = None,
) -> None:
    """Write the four files of a grafted folder into the existing `folder`; fills in the manifest's file hashes.

    `companions` are further files by their names, such as a tokenizer's, which go with the weights byte for byte.
    """
    from spgsurgeon.checkpoint.hashing import content_hash
    from spgsurgeon.checkpoint.writing import write_json, write_safetensors

    write_safetensors(folder / WEIGHTS, base)
    write_safetensors(folder / TEMPORARY, temporary)
    write_json(folder / CONFIG, config)
    for name, content in (companions or {}).items():
        (folder / name).write_bytes(content)
    hashed = replace(
        manifest,
        base=manifest.base | _record_of(companions or {}),
        weights_hash=content_hash(base),
        temporary_hash=content_hash(temporary),
        config_hash=document_hash(config),
    )
    write_json(folder / MANIFEST, sealed(asdict(hashed)))


def read_grafted_folder(folder: Path) -> GraftedFolder:
    """Return the grafted folder after checking that its files are there, readable and as the manifest hashed them.

    In a run's checkpoint the moving average is checked too, by `state.json`. Raises UsageError if the folder is not
    a grafted one or a newer package wrote it, DamagedFileError naming the file that is missing or was changed.
    """
    manifest = read_manifest(folder)
    check_weights(folder / WEIGHTS, manifest.weights_hash, MANIFEST)
    check_weights(folder / TEMPORARY, manifest.temporary_hash, MANIFEST)
    config = read_json_object(folder / CONFIG)
    with naming(folder / CONFIG):
        _check_hash(document_hash(config), manifest.config_hash, MANIFEST)
    for name, digest in manifest.base.get(_FILES, {}).items():
        _check_companion(folder, name, digest)
    if (folder / STATE).exists() or (folder / AVERAGE).exists():
        average = read_state(folder)["hashes"].get("ema")
        if average is not None:
            check_weights(folder / AVERAGE, average, STATE)
        elif (folder / AVERAGE).exists():
            raise DamagedFileError(f"{folder / STATE} is damaged: hashes.ema is missing")
    return GraftedFolder(folder, manifest, config)


def read_state(folder: Path) -> dict[str, Any]:
    """Return what lies beside a run's checkpoint: its counters, the optimizer's numbers and the other files' hashes.

    Raises DamagedFileError if it is missing or was changed.
    """
    from spgsurgeon.checkpoint.schemas import StateDocument, check_schema

    document = read_json_object(folder / STATE)
    with naming(folder / STATE):
        check_schema(StateDocument, document)
        check_seal(document)
    return document


def read_manifest(folder: Path) -> GraftManifest:
    """Return the manifest of a grafted folder, without reading its weights."""
    from spgsurgeon.checkpoint.schemas import ManifestDocument, check_schema  # pydantic takes its time

    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder} is not a grafted folder: it has no {MANIFEST}", hint="spgsurgeon graft makes one")
    document = read_json_object(path)
    with naming(path):
        _check_version(document)
        check_schema(ManifestDocument, document)
        check_seal(document)
    return GraftManifest(**{field.name: document[field.name] for field in fields(GraftManifest)})


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; DamagedFileError where it is missing, far too long or holds something else."""
    with naming(path):
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise MalformedError("it is not a file")
        try:
            with path.open(encoding="utf-8") as file:
                return json_object(file.read(LONGEST_DOCUMENT + 1))
        except FileNotFoundError:
            raise _missing(path) from None
        except UnicodeDecodeError as error:
            raise MalformedError(f"it is not JSON ({error!s:.120})") from error


def kind_of(folder: Path) -> FolderKind:
    """Return what a folder is, by the file that marks it.

    That is graft.json, recipe.yaml (a run), config.json (the Hub), or a weights file alone, as Accelerate leaves it.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is {'a file' if folder.exists() else 'missing'}, not a folder")
    marks: dict[str, FolderKind] = {MANIFEST: "grafted", RUN_RECIPE: "run", CONFIG: "hub"}
    marks |= dict.fromkeys(_ALL_WEIGHTS, "weights")
    for mark, kind in marks.items():
        if (folder / mark).is_file():
            return kind
    _refuse_sharded(folder)
    raise UsageError(
        f"{folder} is not a model folder: it has none of {', '.join(marks)}",
        hint=f"give a grafted folder, a run folder, a folder with weights (on the Hub: and a {CONFIG}), or a file",
        code="not-a-model",
    )


def weights_file_of(folder: Path) -> Path:
    """Return the weights file of a Hub or weights folder, or the index of its shards; safetensors before pickles.

    Raises UsageError if it has none, with advice where a sharded training left its parts there.
    """
    for name in _ALL_WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    _refuse_sharded(folder)
    raise UsageError(f"{folder} has no weights: none of {', '.join(_ALL_WEIGHTS)}", hint="give the weights file itself")


def _refuse_sharded(folder: Path) -> None:
    for pattern, command in _SHARDED.items():
        found = next(iter(sorted(folder.glob(pattern))), None)
        if found is not None:
            raise UsageError(
                f"{folder} holds a model in parts that a sharded training saved ({found.name})",
                hint=f"join them first: {command}",
                code="partial-weights",
            )


def best_of(run: Path) -> Path:
    """Return the grafted folder of a run's best checkpoint, which the link `best` points to."""
    best = checkpoint_at(run / RUN_BEST)
    if best is None:
        raise UsageError(f"{run} has no best checkpoint yet", hint="let the training reach its first evaluation")
    return best


def checkpoint_at(pointer: Path) -> Path | None:
    """Return the folder that a run's link to a checkpoint points to, None if there is no link yet.

    Raises DamagedFileError if what it points to is gone.
    """
    if pointer.is_dir():
        return pointer.resolve()
    if pointer.is_symlink():
        missing = f"its {pointer.name} checkpoint {pointer.readlink()} is missing"
        raise DamagedFileError(f"{pointer.parent} is damaged: {missing}")
    return None


def _check_version(document: Mapping[str, Any]) -> None:
    version = document.get("format_version")
    if type(version) is not int or version < 1:
        raise MalformedError(f"its format_version is {version!a:.60}")
    if version > FORMAT_VERSION:
        raise UnreadableError(
            f"has format version {version!s:.60}, this package reads up to {FORMAT_VERSION}",
            hint=f"upgrade spgsurgeon (the folder was written by {document.get('package_version')!a:.60})",
            code="newer-format",
        )


def check_weights(path: Path, expected: str, record: str) -> None:
    """Raise DamagedFileError unless the tensors in `path` have the content hash that the document `record` says."""
    if not path.is_file():
        raise _missing(path)
    with naming(path), path.open("rb") as file:
        _check_hash(content_hash_of(read_header(file).entries), expected, record)


def _record_of(companions: Mapping[str, bytes]) -> dict[str, dict[str, str]]:
    """Return what a manifest says of files beside the weights; nothing if there are none."""
    return {_FILES: {name: sha256(content).hexdigest() for name, content in companions.items()}} if companions else {}


def _check_companion(folder: Path, name: object, digest: object) -> None:
    if not isinstance(name, str) or Path(name).name != name:
        raise DamagedFileError(f"{folder / MANIFEST} is damaged: {name!a:.60} is not the name of a file beside it")
    path = folder / name
    if not path.is_file():
        raise _missing(path)
    with naming(path):
        _check_hash(sha256(path.read_bytes()).hexdigest(), str(digest), MANIFEST)


def _missing(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path.parent} is damaged: {path.name} is missing", code="missing-file")


def _check_hash(found: str, expected: str, record: str) -> None:
    if found != expected:
        raise MalformedError(
            f"it is not what {record} was written for, as its hash is {found[:12]}, not {expected[:12]}",
            hint="graft or train again; what was edited can't be vouched for",
            code="changed-file",
        )
