"""The two containers of torch.save, zip and (before torch 1.6) a stream of pickles: the object and its storages."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from spgsurgeon.checkpoint.containers.archives import read_archive
from spgsurgeon.checkpoint.layout import CONFIG
from spgsurgeon.checkpoint.pickle.allowlist import QUANTISED_STORAGES, STORAGES
from spgsurgeon.checkpoint.pickle.nodes import Global, Persistent
from spgsurgeon.checkpoint.pickle.pickles import PICKLE_LIMIT, read_pickle
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES

# The first pickles of a legacy file are a magic number, the protocol version and facts about the machine; then come
# the object and the keys of its storages, and these one after another: a count in eight bytes, and the values.
_PREAMBLE = 3
_VERSION = 1001
_FIRST_READ = 4 * 2**20  # bytes

Extents = dict[str, tuple[int, int]]  # by a storage's key: where in the file its values begin, how many bytes they are


@dataclass(frozen=True, slots=True)
class Storage:
    """A run of `numel` elements in a file, from the byte `offset` on; tensors are views of it."""

    dtype: str
    numel: int
    offset: int


@dataclass(frozen=True, slots=True)
class TorchFile:
    """What torch.save stored: a tree of plain data, whose persistent ids are these storages."""

    path: Path
    tree: Any
    storages: dict[Persistent, Storage]
    description: str | None = None
    """The config.json that was put beside the object."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """A persistent id, taken apart: a part of the storage under `key`, counted in elements of `dtype`."""

    key: str
    dtype: str
    total: int  # of the whole storage
    start: int = 0
    numel: int = 0

    @property
    def itemsize(self) -> int:
        return DTYPE_SIZES[self.dtype]


def read_torch_zip(file: BinaryIO) -> TorchFile:
    """Return the object in a zip of torch.save; none of its values is read."""
    archive = read_archive(file)
    tree, persistent = read_pickle(io.BytesIO(archive.read_pickle()))
    if archive.is_big_endian():
        raise _big_endian()
    references = {node: _reference(node) for node in persistent}
    keys = dict.fromkeys(reference.key for reference in references.values())
    extents = {key: archive.extent(f"data/{key}") for key in keys}
    return TorchFile(Path(file.name), tree, _storages(references, extents), archive.read_text(CONFIG))


def read_torch_legacy(file: BinaryIO) -> TorchFile:
    """Return the object in a stream of pickles as torch.save wrote before 1.6; none of its values is read."""
    size = file.seek(0, io.SEEK_END)
    tree, persistent, keys, start = _read_pickles(file, size)
    references = {node: _reference(node) for node in persistent}
    extents = _walk(file, start, size, keys, references.values())
    return TorchFile(Path(file.name), tree, _storages(references, extents))


def _read_pickles(file: BinaryIO, size: int) -> tuple[Any, list[Persistent], Any, int]:
    """Return the object, its persistent ids, the keys of its storages, and the byte where these begin.

    Where the pickles end is known once they are read; nearly all are done after a few megabytes, so these are tried
    first. Not memory-mapped: a mapped file that is cut short ends the process with SIGBUS.
    """
    for limit in (_FIRST_READ, PICKLE_LIMIT):
        file.seek(0)
        try:
            return _pickles_in(io.BytesIO(file.read(min(size, limit))))
        except MalformedError:
            if size <= limit or limit == PICKLE_LIMIT:
                raise
    raise AssertionError("the last limit returns or raises")


def _pickles_in(stream: io.BytesIO) -> tuple[Any, list[Persistent], Any, int]:
    _, version, facts = (read_pickle(stream)[0] for _ in range(_PREAMBLE))
    if version != _VERSION:
        raise MalformedError("its protocol version is unknown")
    if isinstance(facts, dict) and facts.get("little_endian") is False:
        raise _big_endian()
    tree, persistent = read_pickle(stream)
    return tree, persistent, read_pickle(stream)[0], stream.tell()


def _reference(node: Persistent) -> _Reference:
    """Take apart ("storage", class, key, device, numel), in legacy files with the place of a view behind it."""
    match node.id:
        case ("storage", Global(name=name), str() | int() as key, _, int() as total, *rest) if name in STORAGES:
            view = rest[0] if rest else None
        case ("storage", Global(name=name), *_) if name in QUANTISED_STORAGES:
            raise UnreadableError(
                "holds quantised tensors; only dense ones are read", hint="dequantize() them first", code="not-dense"
            )
        case _:
            raise MalformedError("it refers to a storage in an unknown manner")
    match view:
        case None:
            start, numel = 0, total
        case (_, int() as start, int() as numel):
            pass
        case _:
            raise MalformedError("it refers to a storage in an unknown manner")
    if min(start, numel) < 0 or start + numel > total:
        raise MalformedError(f"a view lies outside of its storage {key!r:.80}")
    return _Reference(str(key), STORAGES[name], total, start, numel)


def _walk(file: BinaryIO, start: int, size: int, keys: Any, references: Iterable[_Reference]) -> Extents:
    """Return the extents of a legacy file's storages, which begin at `start`."""
    first: dict[str, _Reference] = {}
    for reference in references:
        first.setdefault(reference.key, reference)
    names = [str(key) for key in keys if isinstance(key, (str, int))] if isinstance(keys, list) else []
    if sorted(names) != sorted(first) or len(names) != len(keys):
        raise MalformedError("its storages are not those that its tensors refer to")
    extents = {}
    for name in names:
        file.seek(start)
        count, reference = int.from_bytes(file.read(8), "little", signed=True), first[name]
        if count != reference.total:
            raise MalformedError(f"its storage {name!r:.80} has {count} values, not {reference.total}")
        extents[name] = start + 8, count * reference.itemsize
        start += 8 + count * reference.itemsize
        if start > size:
            raise MalformedError("it is cut off")
    return extents


def _storages(references: dict[Persistent, _Reference], extents: Extents) -> dict[Persistent, Storage]:
    storages = {}
    for node, reference in references.items():
        offset, size = extents[reference.key]
        if reference.total * reference.itemsize > size:
            raise MalformedError(f"its storage {reference.key!r:.80} has {size} bytes, too few")
        start = offset + reference.start * reference.itemsize
        storages[node] = Storage(reference.dtype, reference.numel, start)
    return storages


def _big_endian() -> UnreadableError:
    return UnreadableError(
        "was written on a big-endian machine, whose files are not read here",
        hint="save it there as .safetensors, which is the same everywhere",
    )
