"""A tensor that lies in a file: what it is and where its bytes are, known without torch and without reading them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

# Bytes an element, by the names of the safetensors format, and in its manner for the one dtype that it lacks (C128).
DTYPE_SIZES: dict[str, int] = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "I16": 2,
    "U16": 2,
    "I32": 4,
    "U32": 4,
    "I64": 8,
    "U64": 8,
    "F8_E4M3": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2": 1,
    "F8_E5M2FNUZ": 1,
    "F8_E8M0": 1,
    "F16": 2,
    "BF16": 2,
    "F32": 4,
    "F64": 8,
    "C64": 8,
    "C128": 16,
}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor in the file `path`; its first element is `offset` bytes in. Little-endian, like every file read here.

    `stride` counts elements; None is contiguous, row-major. Two specs of one offset are one tensor under two keys.
    """

    dtype: str
    shape: tuple[int, ...]
    path: Path
    offset: int
    stride: tuple[int, ...] | None = None

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the elements take when they lie densely."""
        return self.numel * DTYPE_SIZES[self.dtype]

    @property
    def span(self) -> int:
        """The number of elements from the first to the last in the file, both counted; 0 if there are none."""
        if self.stride is None or self.numel == 0:
            return self.numel
        return span_of(self.shape, self.stride)


def is_possible(shape: Sequence[int]) -> bool:
    """Whether a tensor of torch can have this shape of non-negative sizes."""
    return len(shape) <= 64 and math.prod(size or 1 for size in shape) < 2**63


def span_of(shape: Sequence[int], stride: Sequence[int]) -> int:
    """Return how many elements a strided view reaches over, from its first to its last; 0 if it has none."""
    if 0 in shape:
        return 0
    return 1 + sum((size - 1) * step for size, step in zip(shape, stride, strict=True))


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """Return the strides, in elements, of a contiguous tensor."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides[: len(shape)]))


def header_bytes(key: str, dtype: str, shape: Sequence[int]) -> bytes:
    """Return what a hash reads of a tensor before its values: compact ASCII JSON behind its length in eight bytes."""
    header = json.dumps([key, dtype, list(shape)], separators=(",", ":")).encode("ascii")
    return len(header).to_bytes(8, "little") + header
