"""The tensors of weights files, memory-mapped: they take memory only once used, and never write to the file."""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor

from spgsurgeon.checkpoint.containers.headers import read_header
from spgsurgeon.checkpoint.hashing import DTYPE_NAMES
from spgsurgeon.checkpoint.reading import Outline, read_outline
from spgsurgeon.checkpoint.refusals import naming
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
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
    """Return the tensors of a safetensors file, memory-mapped and in file order, and its metadata."""
    with naming(path), path.open("rb") as file:
        header = read_header(file)
    return load_tensors(header.entries), header.metadata


def load_tensors(entries: Mapping[str, TensorSpec]) -> dict[str, Tensor]:
    """Return the tensors, each file memory-mapped once, copy-on-write: changing one never changes the file.

    Tensors that share bytes in the file share memory, as tied weights do. Those that the file does not align to
    their element size (in files from before torch 1.6) are copied.
    """
    maps: dict[Path, mmap.mmap] = {}
    runs: dict[tuple[Path, int, str, int], Tensor] = {}
    tensors = {}
    for key, spec in entries.items():
        if spec.span == 0:
            tensors[key] = torch.empty(spec.shape, dtype=_DTYPES[spec.dtype])
            continue
        if spec.path not in maps:
            maps[spec.path] = _mapped(spec.path)
        run = (spec.path, spec.offset, spec.dtype, spec.span)
        if run not in runs:
            runs[run] = _run(maps[spec.path], spec)
        whole = runs[run]
        tensors[key] = whole.view(spec.shape) if spec.stride is None else whole.as_strided(spec.shape, spec.stride)
    return tensors


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    except (OSError, ValueError) as error:
        raise SurgeonError(f"{path} can't be read: {error}", code="unreadable-file") from error


def _run(mapped: mmap.mmap, spec: TensorSpec) -> Tensor:
    """Return the elements from the tensor's first to its last, flat."""
    dtype = _DTYPES[spec.dtype]
    if spec.offset + spec.span * dtype.itemsize > len(mapped):
        raise DamagedFileError(f"{spec.path} is damaged: it became shorter while it was read")
    if spec.offset % dtype.itemsize:
        raw = torch.frombuffer(mapped, dtype=torch.uint8, count=spec.span * dtype.itemsize, offset=spec.offset)
        return raw.clone().view(dtype)
    return torch.frombuffer(mapped, dtype=dtype, count=spec.span, offset=spec.offset)
