"""Tar archives: what tarfile, and tar where there is one, write is found where it lies; the rest is refused."""

import bz2
import gzip
import io
import lzma
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from tiny_shards import write_tar

from spgsurgeon.data.sources.tar_members import Member, members
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
PLAIN = [("a.jpg", b"x" * 700), ("a.cls", b"3"), ("folder/b.jpg", b""), ("folder/b.cls", b"y" * 512)]
LONG = [(f"{'d' * 90}/{'n' * 150}.jpg", b"long"), ("é" * 120 + ".cls", b"accents"), ("short.jpg", b"short")]


def found(path: Path) -> list[tuple[str, bytes]]:
    with open(path, "rb") as file:
        result = []
        for member in members(file, path):
            at = file.tell()
            content = file.read(member.size)
            assert at == member.offset
            file.seek(0)  # a reader may leave the file wherever it likes
            result.append((member.name, content))
    return result


def by_tarfile(path: Path) -> list[Member]:
    with tarfile.open(path, "r:") as archive:
        return [Member(info.name, info.offset_data, info.size) for info in archive if info.isfile()]


def refusal(path: Path) -> SurgeonError:
    with pytest.raises(SurgeonError) as caught:
        found(path)
    assert str(path) in caught.value.message
    return caught.value


@pytest.mark.parametrize("form", FORMATS)
def test_files_are_found_where_they_lie(tmp_path: Path, form: str) -> None:
    path = write_tar(tmp_path / "a.tar", PLAIN, FORMATS[form])
    assert found(path) == PLAIN
    with open(path, "rb") as file:
        assert list(members(file, path)) == by_tarfile(path)


@pytest.mark.parametrize("form", ["gnu", "pax"])
def test_long_names(tmp_path: Path, form: str) -> None:
    assert found(write_tar(tmp_path / "a.tar", LONG, FORMATS[form])) == LONG


def test_a_prefix_belongs_to_the_name(tmp_path: Path) -> None:
    files = [(f"{'d' * 90}/{'n' * 80}.jpg", b"long")]
    assert found(write_tar(tmp_path / "a.tar", files)) == files


def test_pax_headers_for_one_file_and_for_all(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "whose"}) as archive:
        for number in range(3):
            info = tarfile.TarInfo(f"{number}.jpg")
            info.size, info.mtime = 2, 1.5  # a time with a fraction needs a header of its own
            archive.addfile(info, io.BytesIO(b"%d!" % number))
    assert found(tmp_path / "a.tar") == [(f"{number}.jpg", b"%d!" % number) for number in range(3)]


def test_a_size_in_a_pax_header_or_in_binary(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.size, info.pax_headers = 5, {"size": "3"}
    header = info.tobuf(tarfile.PAX_FORMAT)
    (tmp_path / "pax.tar").write_bytes(header + b"xyz".ljust(512, b"\0") + bytes(1024))
    assert found(tmp_path / "pax.tar") == [("a.jpg", b"xyz")]
    info.size = 8**11 + 1  # too large for octal digits
    (tmp_path / "gnu.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    assert f"should end at byte {512 + 8**11 + 1}, the file has 1536" in refusal(tmp_path / "gnu.tar").message


def test_folders_are_left_out(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        folder, oldest = tarfile.TarInfo("folder"), tarfile.TarInfo("oldest/")
        folder.type, oldest.type = tarfile.DIRTYPE, tarfile.AREGTYPE
        for info in (folder, oldest, tarfile.TarInfo("a.jpg")):
            archive.addfile(info)
    assert found(tmp_path / "a.tar") == [("a.jpg", b"")]


@pytest.mark.parametrize("form", ["ustar", "gnu", "pax"])
@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar")
def test_what_tar_packs(tmp_path: Path, form: str) -> None:
    for name, content in PLAIN:
        (tmp_path / "packed" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "packed" / name).write_bytes(content)
    path = tmp_path / "a.tar"
    subprocess.run(["tar", f"--format={form}", "-C", tmp_path / "packed", "-cf", path, "."], check=True)
    assert sorted(found(path)) == sorted((f"./{name}", content) for name, content in PLAIN)
    with open(path, "rb") as file:
        assert [member[1:] for member in members(file, path)] == [member[1:] for member in by_tarfile(path)]


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.FIFOTYPE, "type '6'"),
        (tarfile.CHRTYPE, "type '3'"),
        (tarfile.GNUTYPE_SPARSE, "a sparse file"),
    ],
)
def test_what_is_no_file_is_refused(tmp_path: Path, kind: bytes, what: str) -> None:
    info = tarfile.TarInfo("a.jpg")
    info.type, info.linkname = kind, "/etc/passwd"
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    error = refusal(tmp_path / "a.tar")
    assert isinstance(error, UsageError)
    assert f"'a.jpg' is {what}" in error.message or f"'a.jpg' is a member of {what}" in error.message


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, lambda data: b"\x28\xb5\x2f\xfd" + data])
def test_compressed_archives_are_refused(tmp_path: Path, pack) -> None:
    path = write_tar(tmp_path / "a.tar", PLAIN)
    path.write_bytes(pack(path.read_bytes()))
    error = refusal(path)
    assert isinstance(error, UsageError)
    assert "could not resume exactly" in error.message
    assert "decompress" in str(error.hint)


def pax(content: bytes) -> bytes:
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, len(content)
    following = tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT)
    return info.tobuf(tarfile.USTAR_FORMAT) + content.ljust(512, b"\0") + following + bytes(1024)


def long_name(size: int) -> bytes:
    info = tarfile.TarInfo("name")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def with_size(field: bytes) -> bytes:
    header = bytearray(tarfile.TarInfo("a.jpg").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = field
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:]) + 256)
    return bytes(header) + bytes(1024)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not a tar file",
        b"not a tar file" * 50,
        bytes(512) + b"more".ljust(512, b"\0"),
        with_size(b"-0000000001\0"),
        with_size(b"0000000zzzz\0"),
        with_size(b"\xff" * 12),
        with_size(b"\x80" + b"\x7f" * 11),
        pax(b"11 size=-5\n"),
        pax(b"0 size=5\n"),
        pax(b"9 size=5\n")[:1024] + bytes(1024),
        pax(b"13 size=9999\n"),
        long_name(2**31),
        long_name(5000),
    ],
)
def test_damaged_archives_are_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    error = refusal(tmp_path / "a.tar")
    assert isinstance(error, DamagedFileError)


def test_an_archive_cut_anywhere_is_damaged(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", PLAIN)
    whole = path.read_bytes()
    with open(path, "rb") as file:
        end = max(member.offset + member.size for member in members(file, path))
    for length in range(0, -(-end // 512) * 512 + 512, 128):
        path.write_bytes(whole[:length])
        assert isinstance(refusal(path), DamagedFileError)


def test_a_changed_byte_in_a_header_is_noticed(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", PLAIN)
    whole = bytearray(path.read_bytes())
    for place in (0, 130, 156, 511):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert isinstance(refusal(path), DamagedFileError)


def test_a_damaged_header_in_the_middle_does_not_end_the_archive(tmp_path: Path) -> None:
    """As it does for tarfile, which then gives the files before it and says nothing."""
    path = write_tar(tmp_path / "a.tar", PLAIN)
    changed = bytearray(path.read_bytes())
    changed[1536] ^= 1
    path.write_bytes(changed)
    assert len(by_tarfile(path)) == 1
    assert "at byte 1536 there is no tar header, or its checksum is wrong" in refusal(path).message


def test_archives_joined_into_one_are_refused(tmp_path: Path) -> None:
    parts = [write_tar(tmp_path / name, PLAIN).read_bytes() for name in "ab"]
    (tmp_path / "joined.tar").write_bytes(b"".join(parts))
    assert "joined" in refusal(tmp_path / "joined.tar").message
