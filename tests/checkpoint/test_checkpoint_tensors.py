"""Tensors as read here against torch.load, over every kind that torch.save writes."""

from __future__ import annotations

import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spgsurgeon.checkpoint.containers import torch_files
from spgsurgeon.checkpoint.hashing import DTYPE_NAMES
from spgsurgeon.checkpoint.pickle.allowlist import DTYPES, REBUILDERS, STORAGES
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES
from spgsurgeon.checkpoint.tensors import load_tensors, read_checkpoint
from spgsurgeon.checkpoint.values import content_hash_of
from spgsurgeon.errors import DamagedFileError, UsageError

CONTAINERS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def bits(dtype: torch.dtype, *shape: int) -> Tensor:
    """A tensor of every bit pattern alike: NaN, infinities and denormals included."""
    generator = torch.Generator().manual_seed(len(shape))
    if dtype is torch.bool:
        return torch.randint(2, shape, generator=generator).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(256, (count,), generator=generator, dtype=torch.uint8).view(dtype).reshape(shape)


def everything() -> OrderedDict[str, Tensor]:
    base = torch.arange(60.0)
    attributed = torch.ones(3)
    attributed.note = "kept out"
    parameter = nn.Parameter(torch.rand(2, 3))
    parameter.note = 1
    return OrderedDict(
        {
            **{f"dtype.{name}": bits(dtype, 3, 2) for dtype, name in DTYPE_NAMES.items()},
            "scalar": torch.tensor(7),
            "empty": torch.zeros(0),
            "empty.shaped": torch.zeros(2, 0, 3),
            "tied.a": base,
            "tied.b": base,
            "view.middle": base[7:11],
            "view.steps": base[1::3],
            "view.transposed": base.reshape(6, 10).T,
            "view.column": base.reshape(6, 10)[:, 3:4],
            "view.expanded": base[5:6].expand(4, 3),
            "view.scalar": base[9],
            "view.reshaped": base.reshape(3, 4, 5),
            "channels_last": torch.rand(2, 3, 4, 5).to(memory_format=torch.channels_last),
            "parameter": nn.Parameter(torch.rand(2, 3)),
            "parameter.frozen": nn.Parameter(torch.rand(2), requires_grad=False),
            "parameter.with_state": parameter,
            "buffer": nn.Buffer(torch.rand(4)),
            "with_attributes": attributed,
        }
    )


def assert_bits_equal(found: Tensor, expected: Tensor) -> None:
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    raw = [tensor.detach().contiguous().reshape(-1).view(torch.uint8) for tensor in (found, expected)]
    assert torch.equal(*raw)


@CONTAINERS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_the_same_bits_as_torch_load(zipped: bool, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    young = {} if zipped else {f"dtype.{name}" for name in DTYPES.values() if name not in STORAGES.values()}
    tensors = OrderedDict((key, tensor) for key, tensor in everything().items() if key not in young)
    torch.save(tensors, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    expected = torch.load(path, weights_only=False)
    checkpoint = read_checkpoint(path)
    assert checkpoint.format == ("torch-zip" if zipped else "torch-legacy")
    assert list(checkpoint.tensors) == list(checkpoint.entries) == list(expected)
    for key, tensor in expected.items():
        assert_bits_equal(checkpoint.tensors[key], tensor)
        assert type(checkpoint.tensors[key]) is Tensor
    assert checkpoint.tensors["channels_last"].is_contiguous(memory_format=torch.channels_last)


def test_the_same_bits_as_safetensors(tmp_path: Path) -> None:
    missing = ("C128", "C64", "FNUZ", "E8M0")  # no names in the format, or none in its older versions
    kinds = {key: value for key, value in everything().items() if not any(name in key for name in missing)}
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in kinds.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    found = read_checkpoint(tmp_path / "model.safetensors").tensors
    expected = load_file(tmp_path / "model.safetensors")
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert_bits_equal(found[key], tensor)


@CONTAINERS
def test_what_shares_memory_before_shares_memory_after(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"a": torch.zeros(4)} | everything(), path, _use_new_zipfile_serialization=zipped)
    tensors = read_checkpoint(path).tensors
    tensors["tied.a"].fill_(3)
    assert tensors["tied.b"].eq(3).all()
    storages = [tensors[key].untyped_storage()._cdata for key in ("tied.a", "tied.b")]
    assert storages[0] == storages[1]  # what torch.save goes by
    assert tensors["a"].untyped_storage().nbytes() == 16  # not the whole file: whoever saves it saves no more


def test_a_misaligned_tensor_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(
        {"a": torch.arange(5, dtype=torch.uint8), "b": torch.rand(9)}, path, _use_new_zipfile_serialization=False
    )
    checkpoint = read_checkpoint(path)
    assert any(spec.offset % DTYPE_SIZES[spec.dtype] for spec in checkpoint.entries.values())
    for tensor in checkpoint.tensors.values():
        assert tensor.data_ptr() % tensor.element_size() == 0


def test_a_file_that_shrank_after_it_was_outlined(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"a": torch.rand(5000)}, path)
    entries = read_checkpoint(path).entries
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DamagedFileError, match="shorter"):
        load_tensors(entries)


@CONTAINERS
def test_a_file_cut_short_after_it_was_opened_ends_nothing(zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"a": torch.ones(2**20), "b": torch.ones(6, 2).T}, path, _use_new_zipfile_serialization=zipped)
    program = """
import os, sys
from pathlib import Path
from spgsurgeon.checkpoint.tensors import read_checkpoint
tensors = read_checkpoint(Path(sys.argv[1])).tensors
os.truncate(sys.argv[1], 100)
print(int(sum(tensor.sum() for tensor in tensors.values())))
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{2**20 + 12}\n"), done.stderr  # -7 is SIGBUS


def test_nothing_of_a_checkpoint_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"a": torch.rand(3000), "t": torch.rand(40, 50).T}, path, _use_new_zipfile_serialization=False)
    program = """
import mmap, sys
from pathlib import Path
import numpy as np
def refused(*_, **__): raise AssertionError("a file of weights is mapped")
mmap.mmap = np.memmap = refused
from spgsurgeon.checkpoint import tensors, values
found = tensors.read_checkpoint(Path(sys.argv[1]))
values.content_hash_of(found.entries)
"""
    subprocess.run([sys.executable, "-c", program, str(path)], check=True)


def test_values_of_a_file_that_shrank(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"a": torch.rand(50, 100).T}, path)
    entries = read_checkpoint(path).entries
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DamagedFileError, match="shorter"):
        content_hash_of(entries)


@pytest.mark.parametrize("first_read", [64, 4096])
def test_a_legacy_file_with_longer_pickles_than_usual(first_read: int, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch_files, "_FIRST_READ", first_read)
    path = tmp_path / "model.pth"
    torch.save({f"layer{n}": torch.full((3,), float(n)) for n in range(50)}, path, _use_new_zipfile_serialization=False)
    assert read_checkpoint(path).tensors["layer49"].tolist() == [49.0] * 3


@CONTAINERS
@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.eye(2).to_sparse(), "sparse"),
        (torch.zeros(2, device="meta"), "meta device"),
        (torch.zeros(2, dtype=torch.complex64).conj(), "conjugated"),
    ],
)
def test_tensors_without_dense_values_are_refused_by_name(
    tensor: Tensor, what: str, zipped: bool, tmp_path: Path
) -> None:
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": tensor}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(UsageError, match=f"'fc.weight' is .*{what}"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantised_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": torch.quantize_per_tensor(torch.zeros(2), 1.0, 0, torch.qint8)}, path)
    with pytest.raises(UsageError, match="quantised"):
        read_checkpoint(path)


@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_the_tables_of_dtypes_agree_with_torch() -> None:
    assert {name: dtype.itemsize for dtype, name in DTYPE_NAMES.items()} == DTYPE_SIZES
    for name, dtype in STORAGES.items():
        if not name.startswith(("torch.cuda.", "torch.storage.")):
            assert DTYPE_NAMES[getattr(torch, name.removeprefix("torch.")).dtype] == dtype
    assert all(hasattr(torch._utils, name.removeprefix("torch._utils.")) for name in REBUILDERS)


@CONTAINERS
def test_outlines_and_values_need_no_torch_and_outlines_no_numpy(zipped: bool, tmp_path: Path) -> None:
    torch.save(everything(), tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    save_file({"a": torch.rand(3)}, tmp_path / "model.safetensors")
    program = """
import sys
from pathlib import Path
from spgsurgeon.checkpoint import folders, values
from spgsurgeon.checkpoint.reading import read_outline
outlines = [read_outline(Path(path)) for path in sys.argv[1:]]
values.content_hash_of(outlines[1].entries)
assert not {"torch", "numpy", "safetensors"} & set(sys.modules), set(sys.modules)
values.content_hash_of(outlines[0].entries)
values.non_finite_of(outlines[0].entries)
assert "torch" not in sys.modules
"""
    paths = [str(tmp_path / "model.pth"), str(tmp_path / "model.safetensors")]
    subprocess.run([sys.executable, "-c", program, *paths], check=True)
