"""The values of tensors that lie in files, read in blocks without torch: their hash, and which are not finite."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES, TensorSpec, header_bytes
from spgsurgeon.errors import DamagedFileError

Block: TypeAlias = bytes | memoryview

_BLOCK = 4 * 2**20  # bytes


@dataclass(frozen=True)
class _Pattern:
    """A value is NaN or an infinity if its bits under the mask are these."""

    word: str  # numpy's name of an unsigned integer; a complex number is two of them
    mask: int
    bits: int


_NON_FINITE = {
    "F16": _Pattern("<u2", 0x7C00, 0x7C00),
    "BF16": _Pattern("<u2", 0x7F80, 0x7F80),
    "F32": _Pattern("<u4", 0x7F80_0000, 0x7F80_0000),
    "F64": _Pattern("<u8", 0x7FF0_0000_0000_0000, 0x7FF0_0000_0000_0000),
    "C64": _Pattern("<u4", 0x7F80_0000, 0x7F80_0000),
    "C128": _Pattern("<u8", 0x7FF0_0000_0000_0000, 0x7FF0_0000_0000_0000),
    # Of the eight-bit kinds only E5M2 has infinities; the others spend one or two patterns on NaN.
    "F8_E5M2": _Pattern("u1", 0x7C, 0x7C),
    "F8_E4M3": _Pattern("u1", 0x7F, 0x7F),
    "F8_E4M3FNUZ": _Pattern("u1", 0xFF, 0x80),
    "F8_E5M2FNUZ": _Pattern("u1", 0xFF, 0x80),
    "F8_E8M0": _Pattern("u1", 0xFF, 0xFF),
}


def content_hash_of(entries: Mapping[str, TensorSpec]) -> str:
    """Return what `hashing.content_hash` returns for these tensors, a block at a time.

    Of a tensor whose elements lie apart in the file, the stretch from its first to its last is held.
    """
    return _hash(entries, lambda key, block: None)


def non_finite_of(entries: Mapping[str, TensorSpec]) -> list[str]:
    """Return the keys of tensors that hold a NaN or an infinity."""
    return [key for key, spec in entries.items() if any(_holds_non_finite(spec.dtype, b) for b in _blocks(spec))]


def hash_and_non_finite_of(entries: Mapping[str, TensorSpec]) -> tuple[str, list[str]]:
    """Return what the two functions above return; each value is read once."""
    found: set[str] = set()

    def look(key: str, block: Block) -> None:
        if key not in found and _holds_non_finite(entries[key].dtype, block):
            found.add(key)

    return _hash(entries, look), [key for key in entries if key in found]


def _hash(entries: Mapping[str, TensorSpec], look: Callable[[str, Block], None]) -> str:
    """Return the hash; `look` is called with each block and the key of its tensor."""
    digest = hashlib.sha256()
    for key in sorted(entries):
        spec = entries[key]
        digest.update(header_bytes(key, spec.dtype, spec.shape))
        for block in _blocks(spec):
            digest.update(block)
            look(key, block)
    return digest.hexdigest()


def _holds_non_finite(dtype: str, block: Block) -> bool:
    pattern = _NON_FINITE.get(dtype)
    if pattern is None or not _may_hold_non_finite(pattern, block):
        return False
    import numpy as np

    return bool(((np.frombuffer(block, pattern.word) & pattern.mask) == pattern.bits).any())


def _may_hold_non_finite(pattern: _Pattern, block: Block) -> bool:
    """Whether the highest byte of any number is that of one; sound weights hardly ever have any, and spare numpy."""
    size = int(pattern.word[-1])
    mask, bits = pattern.mask >> 8 * (size - 1), pattern.bits >> 8 * (size - 1)
    highest = bytes(block)[size - 1 :: size]
    return any(byte in highest for byte in range(256) if byte & mask == bits)


def _blocks(spec: TensorSpec) -> Iterator[Block]:
    """Yield the values in row-major order. A block is only valid until the next one."""
    try:
        yield from _gathered(spec) if spec.stride is not None else _read(spec)
    except (OSError, ValueError) as error:
        raise DamagedFileError(f"{spec.path} can't be read to its end: {error}") from error


def _read(spec: TensorSpec) -> Iterator[memoryview]:
    buffer, left = memoryview(bytearray(min(_BLOCK, spec.nbytes))), spec.nbytes
    with spec.path.open("rb") as file:
        file.seek(spec.offset)
        while left:
            block = buffer[: min(left, _BLOCK)]
            if file.readinto(block) < len(block):
                raise ValueError("it became shorter while it was read")
            yield block
            left -= len(block)


def _gathered(spec: TensorSpec) -> Iterator[bytes]:
    """Yield the values of a tensor whose elements lie apart, or in another order, in the file."""
    import numpy as np

    size = DTYPE_SIZES[spec.dtype]
    stored = np.fromfile(spec.path, np.dtype(f"V{size}"), spec.span, offset=spec.offset)
    if len(stored) < spec.span:
        raise ValueError("it became shorter while it was read")
    steps = [step * size for step in spec.stride or ()]
    values = np.lib.stride_tricks.as_strided(stored, spec.shape, steps, writeable=False).flat
    for start in range(0, spec.numel, _BLOCK // size):
        yield values[start : start + _BLOCK // size].tobytes()
