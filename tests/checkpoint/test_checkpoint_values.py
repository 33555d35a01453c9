from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spgsurgeon.checkpoint import values
from spgsurgeon.checkpoint.hashing import DTYPE_NAMES, content_hash
from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES
from spgsurgeon.checkpoint.tensors import load_tensors
from spgsurgeon.checkpoint.values import content_hash_of, hash_and_non_finite_of, non_finite_of
from spgsurgeon.errors import DamagedFileError


@pytest.mark.parametrize("block", [16, 48, 4 * 2**20])
@pytest.mark.parametrize("zipped", [True, False])
def test_the_streamed_hash_is_that_of_the_tensors(
    zipped: bool, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(values, "_BLOCK", block)
    base = torch.rand(6, 5, 4)
    tensors = {
        "z": base,
        "transposed": base.permute(2, 0, 1),
        "steps": base[::2, 1::3],
        "expanded": base[:1].expand(3, 5, 4),
        "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "bytes": torch.arange(7, dtype=torch.uint8),
        "half": torch.rand(5, 3).half().T,
        "empty": torch.zeros(3, 0),
        "scalar": torch.tensor(3),
    }
    torch.save(tensors, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    entries = read_outline(tmp_path / "model.pth").entries
    assert content_hash_of(entries) == content_hash(tensors) == content_hash(load_tensors(entries))
    assert content_hash_of({key: entries[key] for key in ("z", "steps")}) != content_hash_of(entries)


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPE_NAMES if dtype.is_floating_point or dtype.is_complex])
def test_every_bit_pattern_is_judged_as_torch_judges_it(dtype: torch.dtype, tmp_path: Path) -> None:
    size = dtype.itemsize
    if size == 1:
        raw = torch.arange(256, dtype=torch.uint8).reshape(256, 1)
    else:  # all exponents, with a few mantissas and both signs, in the highest bytes of the number or its second half
        raw = torch.randint(256, (4096, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        raw[:2048, -1] |= 0x7F
        raw[:2048, -2] |= 0xF0
    numbers = raw.contiguous().view(dtype).reshape(-1)
    tensors = {str(i): number.reshape(1).clone() for i, number in enumerate(numbers)}
    torch.save(tensors, tmp_path / "model.pth")
    expected = [key for key, tensor in tensors.items() if not is_finite(tensor)]
    assert 0 < len(expected) < len(tensors)
    entries = read_outline(tmp_path / "model.pth").entries
    assert non_finite_of(entries) == expected
    assert hash_and_non_finite_of(entries) == (content_hash_of(entries), expected)


def is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor if tensor.is_complex() else tensor.double()).all())


def test_integers_are_finite_and_one_value_in_many_is_found(tmp_path: Path) -> None:
    large = torch.zeros(3, 2**20)
    large[2, -1] = float("inf")
    save_file({"a": torch.full((4,), -1), "b": large, "c": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert non_finite_of(read_outline(tmp_path / "model.safetensors").entries) == ["b"]


@pytest.mark.parametrize("strided", [True, False])
def test_a_file_that_shrank_is_damaged(strided: bool, tmp_path: Path) -> None:
    tensor = torch.rand(100, 100)
    torch.save({"a": tensor.T if strided else tensor}, tmp_path / "model.pth")
    entries = read_outline(tmp_path / "model.pth").entries
    assert (entries["a"].stride is not None) == strided
    (tmp_path / "model.pth").write_bytes((tmp_path / "model.pth").read_bytes()[:9000])
    for read in (content_hash_of, non_finite_of, hash_and_non_finite_of):
        with pytest.raises(DamagedFileError, match=r"model\.pth"):
            read(entries)


def test_what_may_be_infinite_is_known_of_every_dtype() -> None:
    floating = {name for dtype, name in DTYPE_NAMES.items() if dtype.is_floating_point or dtype.is_complex}
    assert values._NON_FINITE.keys() == floating
    assert floating < DTYPE_SIZES.keys()
