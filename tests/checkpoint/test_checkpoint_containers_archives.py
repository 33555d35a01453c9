from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}, path)
    return path


def rewritten(path: Path, change: Callable[[dict[str, bytes]], None], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: archive.read(member) for member in archive.infolist()}
    change(members)
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def nothing(members: dict[str, bytes]) -> None:
    pass


def test_a_rewritten_archive_still_reads(saved: Path) -> None:
    rewritten(saved, nothing)
    assert list(read_checkpoint(saved).tensors) == ["fc.weight", "fc.bias"]


def test_compressed_members_are_refused(saved: Path) -> None:
    rewritten(saved, nothing, zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeInputError, match="compressed"):
        read_checkpoint(saved)


def test_members_that_only_say_they_are_compressed_are_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    struct.pack_into("<H", data, data.index(b"PK\x01\x02") + 10, zipfile.ZIP_DEFLATED)
    saved.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="compressed"):
        read_checkpoint(saved)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("model/../../evil", "outside"),
        ("/etc/evil", "outside"),
        ("model\\..\\evil", "outside"),
        ("evil", "outside"),
        ("other/data/0", "several folders"),
        ("model/data/nested.pkl", "other pickles"),
        ("model/code/__torch__.py", "TorchScript"),
        ("model/constants.pkl", "TorchScript"),
    ],
)
def test_strange_members_are_refused(saved: Path, name: str, reason: str) -> None:
    rewritten(saved, lambda members: members.update({name: b"x"}))
    with pytest.raises(UnsafeInputError, match=reason):
        read_checkpoint(saved)


def test_a_member_that_occurs_twice_is_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("model/data/0", b"x" * 24)
    with pytest.raises(UnsafeInputError, match="twice"):
        read_checkpoint(saved)


def test_members_that_claim_more_than_the_file_has_are_refused(saved: Path) -> None:
    data = bytearray(saved.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the first entry of the central directory; its sizes lie 20 bytes in
    struct.pack_into("<II", data, entry + 20, 2**30, 2**30)
    saved.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="claim"):
        read_checkpoint(saved)


def test_bytes_in_front_of_the_archive_are_refused(saved: Path) -> None:
    saved.write_bytes(b"PK\x03\x04" + saved.read_bytes())
    with pytest.raises(UnsafeInputError, match="in front"):
        read_checkpoint(saved)


def test_an_ordinary_zip_is_no_weights_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/readme.txt", "hello")
    with pytest.raises(UsageError, match=r"without data\.pkl"):
        read_checkpoint(path)


def test_torchscript_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("scripted/data.pkl", "scripted/code/__torch__.py", "scripted/constants.pkl"):
            archive.writestr(name, b"\x80\x02N.")
    with pytest.raises(UnsafeInputError, match="TorchScript") as refused:
        read_checkpoint(path)
    assert "torch.jit.load" in str(refused.value.hint)


def test_torchscript_is_told_from_a_compressed_file(saved: Path) -> None:
    rewritten(saved, lambda members: members.update({"model/code/__torch__.py": b"x"}), zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeInputError, match="TorchScript"):
        read_checkpoint(saved)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_a_numpy_archive_is_named(write: Callable[..., None], tmp_path: Path) -> None:
    write(tmp_path / "model.npz", a=np.ones(3), b=np.zeros(2))
    with pytest.raises(UsageError, match="is a NumPy archive"):
        read_checkpoint(tmp_path / "model.npz")


def test_a_missing_storage_is_damage(saved: Path) -> None:
    rewritten(saved, lambda members: members.__delitem__("model/data/1"))
    with pytest.raises(DamagedFileError):
        read_checkpoint(saved)


def test_a_storage_that_is_too_small_is_damage(saved: Path) -> None:
    rewritten(saved, lambda members: members.update({"model/data/0": b"short"}))
    with pytest.raises(DamagedFileError, match="'0' has 5 bytes, too few"):
        read_checkpoint(saved)


@pytest.mark.parametrize(("place", "value"), [(0, b"PK\x01\x02"), (8, b"\x08\x00"), (30, b"x"), (26, b"\xff\xff")])
def test_a_members_own_header_must_agree_with_the_directory(place: int, value: bytes, saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        start = archive.getinfo("model/data/0").header_offset + place
    data = saved.read_bytes()
    saved.write_bytes(data[:start] + value + data[start + len(value) :])
    with pytest.raises(DamagedFileError, match="not what its directory says"):
        read_checkpoint(saved)


def test_overlapping_members_are_refused(saved: Path) -> None:
    with zipfile.ZipFile(saved) as archive:
        first, second = archive.getinfo("model/data/0"), archive.getinfo("model/data/1")
    data = bytearray(saved.read_bytes())
    inner = first.header_offset + 30 + 12 + struct.unpack_from("<H", data, first.header_offset + 28)[0]
    entry = data.index(b"model/data/1", data.index(b"PK\x01\x02")) - 46
    struct.pack_into("<I", data, entry + 42, inner)  # the second member's place is now inside of the first
    assert second.header_offset > inner
    saved.write_bytes(data)
    with pytest.raises(UnsafeInputError, match="reaches into what follows"):
        read_checkpoint(saved)


def test_big_endian_files_are_refused_with_advice(saved: Path) -> None:
    rewritten(saved, lambda members: members.update({"model/byteorder": b"big"}))
    with pytest.raises(UsageError, match="big-endian"):
        read_checkpoint(saved)
    rewritten(saved, lambda members: members.__delitem__("model/byteorder"))
    assert read_checkpoint(saved).tensors


def test_a_flipped_bit_in_the_pickle_is_noticed(saved: Path) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data.replace(b"fc.bias", b"fc.biat", 1))
    with pytest.raises(DamagedFileError, match="checksum"):
        read_checkpoint(saved)


def test_files_saved_without_checksums_are_read(tmp_path: Path) -> None:
    with torch.utils.serialization.config.patch("save.compute_crc32", False):
        torch.save({"a": torch.ones(2)}, tmp_path / "model.pth")
    assert read_checkpoint(tmp_path / "model.pth").tensors["a"].eq(1).all()


def test_a_directory_of_any_size_is_not_read(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spgsurgeon.checkpoint.containers.archives._LARGEST_DIRECTORY", 500)
    with pytest.raises(DamagedFileError, match="directory"):
        read_checkpoint(saved)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_truncated_anywhere_is_damaged(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": torch.zeros(40, 3)}, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    for length in {0, 1, 3, 4, 15, 16, 30, *range(40, len(whole), 61), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(DamagedFileError):
            read_checkpoint(path)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_flipped_bytes_never_end_in_another_kind_of_exception(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save({"fc.weight": torch.zeros(2, 3)}, path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    survived = 0
    for position in range(0, len(whole), 3):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x55]) + whole[position + 1 :])
        try:
            read_checkpoint(path)
            survived += 1
        except SurgeonError:
            pass
    assert survived < len(whole) / 3
