"""Zip archives that lie: about sizes, names and places, by design or by accident."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import time
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from containers import GOOD, VALUES
from mutations import BINARY, mutated
from refusals import attempted, check_short

from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError

MEMBERS = {"model/data.pkl": b"\x80\x02" + GOOD + b".", "model/byteorder": b"little", "model/data/0": VALUES}


def saved_by_torch() -> bytes:
    state = {"conv.weight": torch.rand(4, 3, 3, 3), "bn.mean": torch.rand(4), "bn.num_batches_tracked": torch.tensor(7)}
    state |= {"tied": state["conv.weight"], "fc.weight": torch.rand(2, 4).half().T, "none": torch.zeros(0, 3)}
    buffer = io.BytesIO()
    torch.save({"model": state, "args": {"model": "resnet18"}, "epoch": 3}, buffer)
    return buffer.getvalue()


def built(
    change: Callable[[zipfile.ZipFile], object] = lambda archive: None, *, zip64: bool = False, **changed: bytes
) -> bytes:
    """Return an archive of the good members, the changed ones in their place, and then what `change` puts to it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, warnings.catch_warnings(action="ignore"):
        for name, content in (MEMBERS | changed).items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=zip64) as member:
                member.write(content)
        change(archive)
    return buffer.getvalue()


def test_3_000_mutations_of_a_real_file(tmp_path: Path) -> None:
    """What is still read lies where it lay: its values differ at most where the file does, inside a storage."""
    path, rng = tmp_path / "model.pth", random.Random(0)
    for whole in (saved_by_torch(), built()):
        path.write_bytes(whole)
        good, slowest, read = read_outline(path), 0.0, 0
        with path.open("r+b", buffering=0) as file:
            for _ in range(1500):
                content = mutated(whole, rng, BINARY)
                file.seek(0)
                file.write(content)
                file.truncate()
                start = time.process_time()
                found = attempted(lambda: read_checkpoint(path))
                slowest = max(slowest, time.process_time() - start)
                if isinstance(found, SurgeonError):
                    check_short(found)
                    continue
                read += 1
                assert found.entries == good.entries, content
                for key, spec in good.entries.items():
                    assert found.tensors[key].shape == spec.shape
                assert (found.architecture, found.path_in_file) == (good.architecture, good.path_in_file)
        assert read > 100
        assert slowest < 1, "seconds of one processor for one file"


def test_a_length_that_moves_a_storage_is_noticed(tmp_path: Path) -> None:
    """Any other length of the extra field moves every value of a tensor, and looks like any other tensor."""
    path = tmp_path / "model.pth"
    for whole in (saved_by_torch(), built(zip64=True)):
        path.write_bytes(whole)
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if "/data/" in m.filename and m.file_size]
        with path.open("r+b", buffering=0) as file:
            for member in members:
                old = struct.unpack_from("<H", whole, member.header_offset + 28)[0]
                for length in (length for length in range(70) if length != old):
                    file.seek(member.header_offset + 28)
                    file.write(struct.pack("<H", length))
                    with pytest.raises(SurgeonError):
                        read_outline(path)
                file.seek(member.header_offset + 28)
                file.write(struct.pack("<H", old))
        assert read_outline(path)


BOMB = bytes(50_000_000)


def bomb(archive: zipfile.ZipFile) -> None:
    archive.writestr("model/data/1", BOMB, zipfile.ZIP_DEFLATED)


def linked(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("model/data/link")
    member.create_system, member.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


def named(name: str) -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr(zipfile.ZipInfo(name), b"x")


def packed(method: int) -> Callable[[zipfile.ZipFile], None]:
    return lambda archive: archive.writestr("model/data/1", bytes(100), method)


STRANGE: dict[str, Callable[[zipfile.ZipFile], None]] = {
    "a bomb": bomb,
    "a deflated storage": packed(zipfile.ZIP_DEFLATED),
    "a storage of bzip2": packed(zipfile.ZIP_BZIP2),
    "a storage of lzma": packed(zipfile.ZIP_LZMA),
    **{
        f"a member {name!r}": named(name)
        for name in (
            "../evil",
            "model/../../evil",
            "/evil",
            "model\\..\\evil",
            "C:\\evil",
            "model/..",
            "evil",
            "a/b",
            "",
        )
    },
    "data.pkl twice": named("model/data.pkl"),
    "a storage twice": named("model/data/0"),
    "another pickle": named("model/extra/data.pkl"),
    "a program": named("model/code/__torch__.py"),
}


@pytest.mark.parametrize("what", STRANGE)
def test_strange_members_are_refused_unread(what: str, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(built(STRANGE[what]))
    with pytest.raises(UnsafeInputError) as refused:
        read_outline(tmp_path / "model.pth")
    assert len(refused.value.message) < 600
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]


@pytest.mark.parametrize("compressed", ["model/data.pkl", "model/data/0"])
def test_a_deflated_part_is_refused_before_it_is_inflated(compressed: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        for name, content in MEMBERS.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name == compressed else zipfile.ZIP_STORED)
    with pytest.raises(UnsafeInputError, match="compressed"):
        read_outline(tmp_path / "model.pth")


def good(path: Path) -> bool:
    return read_checkpoint(path).tensors["fc.weight"].tolist() == [1.0, 2.0]


def test_what_is_odd_but_harmless_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    oddities: list[Callable[[zipfile.ZipFile], object]] = [
        linked,  # nothing is ever unpacked
        lambda archive: setattr(archive, "comment", b"a comment with PK\x01\x02 and PK\x03\x04 in it"),
        named("model/\u00e9"),
        named("model/" + "n" * 60_000),
        named("model/data/"),
    ]
    for change in oddities:
        path.write_bytes(built(change))
        assert good(path)
    path.write_bytes(built(zip64=True))
    assert good(path)


def patched(place: int, kind: str, value: int, whole: bytes, name: str = "model/data/0") -> bytes:
    """Return the archive with a number of this member's entry in the directory replaced."""
    content = bytearray(whole)
    entry = content.index(name.encode(), content.index(b"PK\x01\x02")) - 46
    struct.pack_into(kind, content, entry + place, value)
    return bytes(content)


LIES = {
    "compressed": (10, "<H", 8),
    "encrypted": (8, "<H", 1),
    "larger": (24, "<I", 9),
    "larger, twice": (20, "<Q", 9 | 9 << 32),
    "smaller, twice": (20, "<Q", 4 | 4 << 32),
    "of four gigabytes": (20, "<Q", 2**64 - 1),
    "at another place": (42, "<I", 1),
    "where data.pkl is": (42, "<I", 0),
    "beyond the end": (42, "<I", 2**31),
    "at a 64-bit place": (42, "<I", 2**32 - 1),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_directory_that_lies_about_a_storage(lie: str, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(patched(*LIES[lie], whole=built()))
    with pytest.raises(SurgeonError) as refused:
        read_outline(tmp_path / "model.pth")
    assert isinstance(refused.value, (DamagedFileError, UnsafeInputError))


@pytest.mark.parametrize(("place", "value"), [(34, 7), (28, 2**16 - 1), (30, 2**16 - 1)])
def test_a_directory_that_lies_about_what_nobody_needs(place: int, value: int, tmp_path: Path) -> None:
    """The number of a disk; in the last entry, lengths beyond its end."""
    (tmp_path / "model.pth").write_bytes(patched(place, "<H", value, whole=built()))
    assert good(tmp_path / "model.pth")


def end_of(whole: bytes) -> int:
    return whole.rindex(b"PK\x05\x06")


def test_garbage_around_the_archive(tmp_path: Path) -> None:
    path, whole = tmp_path / "model.pth", built()
    path.write_bytes(b"PK\x03\x04 is how it begins" + whole)
    with pytest.raises(UnsafeInputError, match="in front"):
        read_outline(path)
    other = built(**{"model/data/0": b"\x00" * 8})
    for second in (other, b"PK\x05\x06" + bytes(18), other[end_of(other) :]):
        path.write_bytes(whole + second)  # which of two directories counts must not matter
        with pytest.raises(SurgeonError):
            read_outline(path)
    for length in (1, 100, 65_535, 70_000):
        path.write_bytes(whole + b"x" * length)
        found = attempted(lambda: good(path))
        assert found is True or (isinstance(found, DamagedFileError) and length > 65_535)
    directory = whole.index(b"PK\x01\x02")
    for change in (
        (12, "<I", 0),
        (12, "<I", 2**32 - 1),
        (16, "<I", directory - 9),
        (16, "<I", 2**32 - 1),
        (10, "<H", 999),
    ):
        content = bytearray(whole)
        struct.pack_into(change[1], content, end_of(whole) + change[0], change[2])
        path.write_bytes(content)
        found = attempted(lambda: good(path))
        assert isinstance(found, SurgeonError) or found, change


def test_100_000_members(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    header, entry = struct.Struct("<4s5H3I2H"), struct.Struct("<4s6H3I5H2I")
    small = built()
    parts, directory, place = [small[: small.index(b"PK\x01\x02")]], [], small.index(b"PK\x01\x02")
    original = small[place : end_of(small)]
    for number in range(100_000):
        name = f"model/data/x{number}".encode()
        parts.append(header.pack(b"PK\x03\x04", 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0) + name)
        directory.append(entry.pack(b"PK\x01\x02", 20, 20, 0, 0, 0, 0, 0, 0, 0, len(name), 0, 0, 0, 0, 0, place) + name)
        place += len(parts[-1])
    listing = original + b"".join(directory)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(listing), place, 0)
    path.write_bytes(b"".join(parts) + listing + end)
    start = time.process_time()
    assert good(path)
    assert time.process_time() - start < 10, "seconds of one processor"


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "loop.pth").symlink_to("loop.pth")
    (tmp_path / "nowhere.pth").symlink_to("missing")
    for name in ("loop.pth", "nowhere.pth", "absent.pth", "."):
        with pytest.raises(SurgeonError):
            read_outline(tmp_path / name)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    descriptor = os.open(tmp_path / "pipe.pth", os.O_RDWR)
    os.write(descriptor, b"PK\x03\x04" * 200)  # so that who reads it all the same does not wait for ever
    try:
        with pytest.raises(UsageError, match="a pipe"):
            read_outline(tmp_path / "pipe.pth")
    finally:
        os.close(descriptor)
