"""A state dict in several files: a JSON index that says which key lies in which."""

from __future__ import annotations

import json
from pathlib import Path, PurePath
from typing import Any

from spgsurgeon.checkpoint.containers.documents import Document, read_document
from spgsurgeon.checkpoint.containers.headers import HEADER_LIMIT, unique_keys
from spgsurgeon.checkpoint.state_dict.layouts import specs_at
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
from spgsurgeon.errors import DamagedFileError, UnsafeInputError, UsageError

INDEX_SUFFIX = ".index.json"


def read_shards(index: Path) -> tuple[Document, dict[str, TensorSpec]]:
    """Return the first shard's document and all tensors of an index, shard by shard, each in its file's order.

    Raises UsageError where there is no such index, UnsafeInputError where it names a file outside its own folder,
    DamagedFileError where it is malformed, a shard is missing, or a shard's keys are not those that the index says.
    """
    weight_map = _weight_map(index)
    documents = {name: _shard(index, name) for name in sorted(set(weight_map.values()))}
    entries: dict[str, TensorSpec] = {}
    for name, document in documents.items():
        found = specs_at(document.path, document.values, document.layout.raw or (), document.spec_of)
        expected = {key for key, shard in weight_map.items() if shard == name}
        if found.keys() != expected:
            key = min(found.keys() ^ expected)
            wrong = "lacks" if key in expected else "has, against the index,"
            raise _damaged(index, f"its shard {name} {wrong} {key!r:.120}")
        entries |= found
    return next(iter(documents.values())), entries


def _weight_map(index: Path) -> dict[str, str]:
    if not index.is_file():
        raise UsageError(f"there is no file {index}", hint="check the path")
    if index.stat().st_size > HEADER_LIMIT:
        raise _damaged(index, f"it is larger than {HEADER_LIMIT} bytes")
    try:
        document: Any = json.loads(index.read_bytes().decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise _damaged(index, f"it is not JSON ({error!s:.120})") from error
    match document:
        case {"weight_map": dict() as found} if found and all(isinstance(name, str) for name in found.values()):
            return found
    raise _damaged(index, "it has no weight_map from keys to files")


def _shard(index: Path, name: str) -> Document:
    plain = name.isprintable() and name not in ("", ".", "..") and PurePath(name).name == name and "\\" not in name
    if not plain:
        raise UnsafeInputError(
            f"{index} was not loaded: it names the shard {name!r:.120}, which is no file of its own folder",
            hint="the shards lie beside their index, under plain names",
        )
    path = index.parent / name
    if not path.is_file():
        raise _damaged(index, f"its shard {name:.200} is missing")
    return read_document(path)


def _damaged(index: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(f"{index} is damaged: {reason}", hint="copy or download its folder again")
