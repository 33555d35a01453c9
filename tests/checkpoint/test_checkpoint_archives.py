from __future__ import annotations

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from spgsurgeon.checkpoint.reading import read_checkpoint
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


def test_a_missing_storage_is_damage(saved: Path) -> None:
    rewritten(saved, lambda members: members.__delitem__("model/data/1"))
    with pytest.raises(DamagedFileError):
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
