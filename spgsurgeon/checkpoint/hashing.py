"""Hashes that say whether two sets of weights are the same, whatever file or memory holds them.

Both hashes read a tensor's header as compact ASCII JSON, `["fc.weight","F32",[1000,512]]`, preceded by its length
(eight bytes, little-endian). The header fixes the number of bytes that follow it, so the framing is unambiguous.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping

import torch
from torch import Tensor

from spgsurgeon.checkpoint.pickle.allowlist import DTYPES
from spgsurgeon.checkpoint.state_dict.specs import header_bytes
from spgsurgeon.errors import UsageError

DTYPE_NAMES: dict[torch.dtype, str] = {getattr(torch, name.removeprefix("torch.")): DTYPES[name] for name in DTYPES}


def content_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex SHA-256 over the tensors sorted by key: header, then values as little-endian row-major bytes.

    The same for any file format, device, key order and memory layout; other dtypes, shapes or a single other bit
    give another hash. Refuses tensors that are not dense (sparse, quantised, meta).
    """
    digest = hashlib.sha256()
    for key in sorted(tensors):
        if tensors[key].is_meta:
            raise UsageError(f"tensor {key!r} is on the meta device, so it has no values to hash")
        digest.update(_header(key, tensors[key]))
        digest.update(_little_endian(tensors[key]))
    return digest.hexdigest()


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Return whether two dense tensors have the same dtype, shape and bits: 0 is not -0 here, and a NaN equals itself.

    They are on the same device.
    """
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(_bytes(a), _bytes(b))


def layout_hash(tensors: Mapping[str, Tensor]) -> str:
    """Return the hex SHA-256 over the headers alone (key, dtype, shape), in the mapping's own order."""
    digest = hashlib.sha256()
    for key, tensor in tensors.items():
        digest.update(_header(key, tensor))
    return digest.hexdigest()


def _header(key: str, tensor: Tensor) -> bytes:
    if tensor.dtype not in DTYPE_NAMES or tensor.layout != torch.strided:
        raise UsageError(
            f"tensor {key!r} is {tensor.dtype} with layout {tensor.layout}: only dense tensors have a hash",
            hint="convert it to a dense tensor of a standard dtype first",
        )
    return header_bytes(key, DTYPE_NAMES[tensor.dtype], tensor.shape)


def _little_endian(tensor: Tensor) -> memoryview:
    raw = _bytes(tensor.cpu())
    if sys.byteorder == "big":
        size = tensor.element_size() // (2 if tensor.is_complex() else 1)
        raw = raw.reshape(-1, size).flip(-1).reshape(-1)
    return raw.numpy().data


def _bytes(tensor: Tensor) -> Tensor:
    """Return the values in row-major order, uint8 [bytes], as this machine has them."""
    flat = tensor.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
    if flat.is_complex():
        flat = torch.view_as_real(flat).reshape(-1)
    return flat.view(torch.uint8)
