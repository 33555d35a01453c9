"""A state dict in several files: a JSON index that says which key lies in which."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from spgsurgeon.checkpoint.containers.documents import Document, opened_weights, read_document
from spgsurgeon.checkpoint.containers.headers import HEADER_LIMIT, unique_keys
from spgsurgeon.checkpoint.refusals import MalformedError, UnsafeError, naming
from spgsurgeon.checkpoint.state_dict.layouts import specs_at
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec

INDEX_SUFFIX = ".index.json"


def read_shards(index: Path) -> tuple[Document, dict[str, TensorSpec]]:
    """Return the first shard's document and all tensors of an index, shard by shard, each in its file's order.

    Raises UsageError if there is no such index, UnsafeInputError where it names a file outside its own folder,
    DamagedFileError where it is malformed, a shard is missing, or a shard's keys are not those that the index says.
    """
    with naming(index), opened_weights(index) as file:
        weight_map = _weight_map(file)
        shards = {name: _shard(index.parent, name) for name in sorted(set(weight_map.values()))}
        for name, (_, found) in shards.items():
            expected = {key for key, shard in weight_map.items() if shard == name}
            if found.keys() != expected:
                key = min(found.keys() ^ expected)
                wrong = "lacks" if key in expected else "has, against the index,"
                raise _damaged(f"its shard {name} {wrong} {key!r:.120}")
    entries = {key: spec for _, found in shards.values() for key, spec in found.items()}
    return next(document for document, _ in shards.values()), entries


def _weight_map(file: BinaryIO) -> dict[str, str]:
    if file.seek(0, io.SEEK_END) > HEADER_LIMIT:
        raise _damaged(f"it is larger than {HEADER_LIMIT} bytes")
    file.seek(0)
    try:
        document: Any = json.loads(file.read().decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise _damaged(f"it is not JSON ({error!s:.120})") from error
    match document:
        case {"weight_map": dict() as found} if found and all(isinstance(name, str) for name in found.values()):
            return found
    raise _damaged("it has no weight_map from keys to files")


def _shard(folder: Path, name: str) -> tuple[Document, dict[str, TensorSpec]]:
    plain = name.isprintable() and name not in ("", ".", "..") and PurePath(name).name == name and "\\" not in name
    if not plain:
        raise UnsafeError(
            f"it names the shard {name!r:.120}, which is not a file of its own folder",
            hint="the shards lie beside their index, under plain names",
            code="outside-folder",
        )
    if not (folder / name).is_file():
        raise _damaged(f"its shard {name:.200} is missing", code="missing-file")
    document = read_document(folder / name)
    with naming(folder / name):
        return document, specs_at(document.values, document.layout.raw or (), document.spec_of)


def _damaged(reason: str, code: str | None = None) -> MalformedError:
    return MalformedError(reason, hint="copy or download its folder again", code=code)
