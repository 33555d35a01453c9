from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import DamagedFileError, UnsafeInputError, UsageError

SHARDS = {
    "model-00001-of-00002": {"module.a": torch.rand(3), "module.b": torch.rand(2)},
    "model-00002-of-00002": {"module.c": torch.rand(4)},
}
WHOLE = {key.removeprefix("module."): tensor for shard in SHARDS.values() for key, tensor in shard.items()}


def write(folder: Path, suffix: str, weight_map: dict[str, str] | None = None) -> Path:
    for name, tensors in SHARDS.items():
        if suffix == ".safetensors":
            save_file(tensors, folder / (name + suffix), {"format": "pt"})
        else:
            torch.save(tensors, folder / (name + suffix))
    known = {key: name + suffix for name, shard in SHARDS.items() for key in shard}
    index = folder / f"model{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": known | (weight_map or {})}))
    return index


@pytest.mark.parametrize(("suffix", "form"), [(".safetensors", "safetensors"), (".bin", "torch-zip")])
def test_shards_read_as_one(suffix: str, form: str, tmp_path: Path) -> None:
    checkpoint = read_checkpoint(write(tmp_path, suffix))
    assert (checkpoint.format, checkpoint.prefixes, checkpoint.weights) == (form, ("module.",), "raw")
    assert list(checkpoint.tensors) == list(WHOLE)
    assert all(torch.equal(checkpoint.tensors[key], tensor) for key, tensor in WHOLE.items())
    with pytest.raises(UsageError, match="no ema weights"):
        read_checkpoint(checkpoint.path, "ema")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index = write(tmp_path, ".safetensors")
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(DamagedFileError, match=r"model-00002-of-00002\.safetensors is missing"):
        read_checkpoint(index)


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    index = write(tmp_path, ".bin")
    shard = tmp_path / "model-00001-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(DamagedFileError, match=r"model-00001-of-00002\.bin"):
        read_checkpoint(index)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"module.d": "model-00001-of-00002.safetensors"}, "lacks 'module.d'"),
        ({"module.a": "model-00002-of-00002.safetensors"}, "has, against the index, 'module.a'"),
    ],
)
def test_index_and_shards_must_agree(weight_map: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=message):
        read_checkpoint(write(tmp_path, ".safetensors", weight_map))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "sub/x.bin", "..", "", "a\\b", "a\x1b[2J", "a\0b"])
def test_shards_lie_beside_their_index(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeInputError, match="not a file of its own folder") as refused:
        read_checkpoint(write(tmp_path, ".safetensors", {"module.a": name}))
    assert refused.value.message.isprintable()


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": ' + "[" * 100_000, "\ud800"],
)
def test_a_broken_index_is_damaged(content: str, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DamagedFileError, match=r"index\.json is damaged"):
        read_checkpoint(index)


def test_no_index_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"x\.index\.json"):
        read_checkpoint(tmp_path / "x.index.json")


def test_links_out_of_the_folder_are_followed(tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    index = write(tmp_path / "snapshot", ".safetensors")
    for name in SHARDS:
        shard = tmp_path / "snapshot" / f"{name}.safetensors"
        shard.rename(tmp_path / "blobs" / name)
        shard.symlink_to(tmp_path / "blobs" / name)
    found: dict[str, Tensor] = read_checkpoint(index).tensors
    assert found.keys() == WHOLE.keys()
