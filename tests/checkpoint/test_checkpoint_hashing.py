from __future__ import annotations

import hashlib
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spgsurgeon.checkpoint.hashing import DTYPE_NAMES, content_hash, layout_hash
from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.checkpoint.writing import write_safetensors, write_torch
from spgsurgeon.errors import UsageError


def weights() -> OrderedDict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return OrderedDict(
        {
            "conv.weight": torch.randn(4, 3, 2, 2, generator=generator),
            "bn.num_batches_tracked": torch.tensor(7),
            "mask": torch.tensor([True, False]),
            "half": torch.randn(3, generator=generator).half(),
            "brain": torch.randn(3, generator=generator).bfloat16(),
            "eighth": torch.randn(5, generator=generator).to(torch.float8_e4m3fn),
            "bytes": torch.arange(3, dtype=torch.uint8),
            "empty": torch.zeros(0, 3),
        }
    )


def test_the_hash_is_what_its_docstring_says() -> None:
    header = b'["a","I16",[2]]'
    expected = hashlib.sha256((15).to_bytes(8, "little") + header + b"\x01\x00\x00\x01").hexdigest()
    assert content_hash({"a": torch.tensor([1, 256], dtype=torch.int16)}) == expected


def test_the_same_in_every_file_format_order_and_memory_layout(tmp_path: Path) -> None:
    tensors = weights()
    expected = content_hash(tensors)
    write_safetensors(tmp_path / "a.safetensors", tensors)
    write_torch(tmp_path / "a.pt", tensors)
    for name in ("a.safetensors", "a.pt"):
        assert content_hash(read_checkpoint(tmp_path / name).tensors) == expected
    older = {key: tensor for key, tensor in tensors.items() if key != "eighth"}  # float8 is younger than the format
    torch.save(older, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert content_hash(read_checkpoint(tmp_path / "old.pth").tensors) == content_hash(older)
    tensors["conv.weight"] = tensors["conv.weight"].to(memory_format=torch.channels_last)
    assert content_hash(dict(reversed(tensors.items()))) == expected


def test_views_and_conjugates_hash_as_their_values() -> None:
    matrix = torch.randn(3, 5, dtype=torch.complex64)
    assert content_hash({"m": matrix.mH}) == content_hash({"m": matrix.mH.resolve_conj().clone()})
    assert content_hash({"m": matrix[1]}) == content_hash({"m": matrix[1].clone()})
    assert content_hash({"m": torch.arange(6)[::2]}) == content_hash({"m": torch.tensor([0, 2, 4])})


@pytest.mark.parametrize("dtype", DTYPE_NAMES)
def test_every_dtype_hashes_and_its_name_counts(dtype: torch.dtype) -> None:
    zeros = torch.zeros(8, dtype=torch.uint8)
    same_bytes = zeros.repeat(dtype.itemsize).view(dtype)
    hashes = {content_hash({"a": same_bytes}), content_hash({"a": zeros})}
    assert len(hashes) == (1 if dtype == torch.uint8 else 2)


@pytest.mark.parametrize(
    "other",
    [
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(6)},
        {"a": torch.zeros(2, 3, dtype=torch.int32)},
        {"a": -torch.zeros(2, 3)},
        {"a": torch.zeros(2, 3), "b": torch.zeros(0)},
    ],
)
def test_any_difference_gives_another_hash(other: dict[str, Tensor]) -> None:
    assert content_hash(other) != content_hash({"a": torch.zeros(2, 3)})


def test_the_layout_hash_sees_order_and_shape_but_no_values() -> None:
    tensors = weights()
    assert layout_hash(tensors) == layout_hash({key: torch.zeros_like(tensor) for key, tensor in tensors.items()})
    assert layout_hash(tensors) != layout_hash(dict(reversed(tensors.items())))
    assert layout_hash(tensors) != layout_hash({**tensors, "mask": torch.zeros(3, dtype=torch.bool)})


@pytest.mark.parametrize("tensor", [torch.zeros(2, 2).to_sparse(), torch.zeros(2, device="meta")])
def test_tensors_without_dense_values_are_refused(tensor: Tensor) -> None:
    with pytest.raises(UsageError, match="'odd'"):
        content_hash({"odd": tensor})
