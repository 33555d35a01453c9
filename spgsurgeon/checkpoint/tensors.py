"""The tensors of weights files, read into memory: whatever happens to the file afterwards, they stay what they are."""

from __future__ import annotations

import io
import os
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spgsurgeon.checkpoint.containers.headers import read_header
from spgsurgeon.checkpoint.hashing import DTYPE_NAMES
from spgsurgeon.checkpoint.reading import Outline, read_outline
from spgsurgeon.checkpoint.refusals import naming
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES, TensorSpec
from spgsurgeon.errors import DamagedFileError, SurgeonError

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}


@dataclass(frozen=True)
class Checkpoint(Outline):
    """An outline with the tensors themselves: on the CPU, in the order of its entries."""

    tensors: dict[str, Tensor]


def read_checkpoint(path: Path, weights: str | None = None) -> Checkpoint:
    """Return the chosen weights of a file, or of the shards of an index, and all that `read_outline` says of them."""
    outline = read_outline(path, weights)
    said = {field.name: getattr(outline, field.name) for field in fields(Outline)}
    return Checkpoint(**said, tensors=load_tensors(outline.entries))


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, in file order, and its metadata."""
    with naming(path), path.open("rb") as file:
        header = read_header(file)
    return load_tensors(header.entries), header.metadata


def load_tensors(entries: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """Return the tensors, read into memory of their own: changing one never changes the file.

    Tensors that share bytes in the file share memory, as tied weights do. Those that can't lie at a multiple of their
    element size then are copied. Raises DamagedFileError if a file is shorter by now than its outline said.
    """
    # Not memory-mapped: where a mapped file is cut short, the next look at a tensor ends the process with SIGBUS.
    blocks = _blocks(entries.values())
    runs: dict[tuple[Path, int, str, int], Tensor] = {}
    tensors = {}
    for key, spec in entries.items():
        if spec.span == 0:
            tensors[key] = torch.empty(spec.shape, dtype=_DTYPES[spec.dtype])
            continue
        run = (spec.path, spec.offset, spec.dtype, spec.span)
        if run not in runs:
            runs[run] = _run(blocks[spec.path].over(spec.offset), spec)
        whole = runs[run]
        tensors[key] = whole.view(spec.shape) if spec.stride is None else whole.as_strided(spec.shape, spec.stride)
    return tensors


@dataclass(frozen=True)
class _Block:
    """Bytes of a file from `start` on, in memory."""

    start: int
    values: NDArray[np.uint8]


@dataclass(frozen=True)
class _Blocks:
    """What was read of a file, by where it begins."""

    starts: list[int]
    blocks: list[_Block]

    def over(self, offset: int) -> _Block:
        return self.blocks[bisect_right(self.starts, offset) - 1]


def _blocks(specs: Iterable[TensorSpec]) -> dict[Path, _Blocks]:
    """Return the bytes of all tensors, each byte of a file once."""
    extents: dict[Path, set[tuple[int, int]]] = {}
    for spec in specs:
        if spec.span:
            extents.setdefault(spec.path, set()).add((spec.offset, spec.offset + spec.span * DTYPE_SIZES[spec.dtype]))
    return {path: _read(path, _joined(found)) for path, found in extents.items()}


def _joined(extents: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the extents (first byte, byte behind the last) with those that overlap as one."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(extents):
        if joined and start < joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], end)
        else:
            joined.append((start, end))
    return joined


def _read(path: Path, extents: list[tuple[int, int]]) -> _Blocks:
    try:
        with path.open("rb", buffering=0) as file:
            blocks = [_Block(start, _read_extent(file, path, start, end)) for start, end in extents]
    except OSError as error:
        raise SurgeonError(f"{path} can't be read: {error}", code="unreadable-file") from error
    return _Blocks([start for start, _ in extents], blocks)


def _read_extent(file: io.FileIO, path: Path, start: int, end: int) -> NDArray[np.uint8]:
    # Asked for after the look at the size, as a damaged header may claim more than there is memory.
    if end > os.fstat(file.fileno()).st_size:
        raise _shorter(path)
    values = np.empty(end - start, np.uint8)
    view = memoryview(values.data)
    file.seek(start)
    while view:
        count = file.readinto(view)  # two gigabytes at most on Linux
        if not count:
            raise _shorter(path)
        view = view[count:]
    return values


def _shorter(path: Path) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: it became shorter while it was read", hint="copy or download it again")


def _run(block: _Block, spec: TensorSpec) -> Tensor:
    """Return the elements from the tensor's first to its last, flat."""
    dtype, offset = _DTYPES[spec.dtype], spec.offset - block.start
    if offset % dtype.itemsize:
        raw = torch.frombuffer(block.values, dtype=torch.uint8, count=spec.span * dtype.itemsize, offset=offset)
        return raw.clone().view(dtype)
    return torch.frombuffer(block.values, dtype=dtype, count=spec.span, offset=offset)
