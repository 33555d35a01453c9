"""The zip container of torch.save, checked member by member before anything inside it is read."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from bisect import bisect_right
from pathlib import PurePosixPath
from typing import BinaryIO

from spgsurgeon.checkpoint.containers.objects import LONGEST_DOCUMENT
from spgsurgeon.checkpoint.pickle.pickles import PICKLE_LIMIT
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError, UnsafeError

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")  # the last two: the lengths of the name and of the extra field behind it
# What lies behind a member's bytes: its checksum once more where its header announces that, else the next member or
# the directory. A wrong length of the extra field in front would move all of its values, unnoticed but for this.
_CHECKSUM, _NEXT = (b"PK\x07\x08",), (b"PK\x03\x04", b"PK\x01\x02")
_LARGEST_DIRECTORY = 32 * 2**20  # bytes; a member takes about 64, and a file of weights has thousands


class _BoundedFile(io.FileIO):
    """A file of which zipfile reads the directory, and no directory of any size that it claims."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"it claims {size} bytes for its directory")
        return super().read(size) or b""


class Archive:
    """The members of an open zip archive of torch.save; make one with `read_archive`."""

    def __init__(self, file: BinaryIO, members: list[zipfile.ZipInfo], end: int) -> None:
        self._file = file
        self._starts = sorted([*(member.header_offset for member in members), end])
        self._members = {member.filename.partition("/")[2]: member for member in members}

    def read_pickle(self) -> bytes:
        """Return `data.pkl`. Its checksum is compared where it has one: torch can be told to write zeros instead."""
        data = self._read("data.pkl", PICKLE_LIMIT)
        if self._members["data.pkl"].CRC not in (0, zlib.crc32(data)):
            raise MalformedError("the checksum of data.pkl is another")
        return data

    def is_big_endian(self) -> bool:
        """Whether its values were written on a big-endian machine."""
        return "byteorder" in self._members and self._read("byteorder", 16) == b"big"

    def read_text(self, name: str) -> str | None:
        """Return a member that is text; None if there is no such member."""
        if name not in self._members:
            return None
        try:
            return self._read(name, LONGEST_DOCUMENT).decode()
        except UnicodeDecodeError as error:
            raise MalformedError(f"its member {name!r:.80} is not text") from error

    def extent(self, name: str) -> tuple[int, int]:
        """Return where in the file a member's bytes begin, and how many they are; `name` is without the folder.

        Raises MalformedError if there is no such member or its own header contradicts the directory,
        UnsafeError where it overlaps the next one.
        """
        member = self._members.get(name)
        if member is None:
            raise MalformedError(f"it has no member {name!r:.80}")
        self._file.seek(member.header_offset)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise MalformedError(f"its member {name!r:.80} is cut off")
        signature, _, flags, method, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        local_name = self._file.read(name_length).decode("utf-8" if flags & 0x800 else "cp437", "replace")
        if signature != b"PK\x03\x04" or flags & 0x1 or method != zipfile.ZIP_STORED or local_name != member.filename:
            raise MalformedError(f"its member {name!r:.80} is not what its directory says")
        start = member.header_offset + _LOCAL_HEADER.size + name_length + extra_length
        if start + member.file_size > self._starts[bisect_right(self._starts, member.header_offset)]:
            raise UnsafeError(f"its member {name!r:.80} reaches into what follows it")
        self._file.seek(start + member.file_size)
        if self._file.read(4) not in (_CHECKSUM if flags & 0x8 else _NEXT):
            raise MalformedError(f"its member {name!r:.80} does not end where its directory says")
        return start, member.file_size

    def _read(self, name: str, limit: int) -> bytes:
        start, size = self.extent(name)
        if size > limit:
            raise UnsafeError(f"its {name} has {size} bytes, and that of weights at most {limit}")
        self._file.seek(start)
        data = self._file.read(size)
        if len(data) < size:
            raise MalformedError(f"its {name} is cut off")
        return data


def read_archive(file: BinaryIO) -> Archive:
    """Return the zip archive of torch.save in an open file, after checking every member of its directory.

    Refuses, before a byte of a member is read: compressed or encrypted members, names that leave the archive's one
    folder, names that occur twice, members that claim more bytes than the file has, pickles beside `data.pkl`,
    TorchScript programs (UnsafeError), zip archives that torch.save did not write, such as NumPy's (UnreadableError),
    and archives that are cut off (MalformedError).
    """
    members, end = _directory(file)
    _check_kind(members)
    _check_sizes(members, file.seek(0, io.SEEK_END))
    _check_names(members)
    _check_pickles(members)
    _check_places(members, end)
    return Archive(file, members, end)


def _directory(file: BinaryIO) -> tuple[list[zipfile.ZipInfo], int]:
    """Return the members as the directory at the end of the file has them, and the byte where it begins."""
    try:
        with _BoundedFile(file.fileno(), closefd=False) as bounded, zipfile.ZipFile(bounded) as archive:
            return archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, struct.error, EOFError, ValueError, OverflowError, NotImplementedError) as error:
        reason = f"it begins like a zip archive but is cut off or contradicts itself ({error})"
        raise MalformedError(reason) from error


def _check_pickles(members: list[zipfile.ZipInfo]) -> None:
    pickles = [member.filename for member in members if member.filename.endswith(".pkl")]
    if not pickles:
        raise UnreadableError(
            "is a zip archive without data.pkl, so torch.save did not write it",
            hint="unpack it, and give the weights file inside",
        )
    if len(pickles) > 1 or PurePosixPath(pickles[0]).parts[1:] != ("data.pkl",):
        raise UnsafeError(f"it holds other pickles than its own data.pkl: {pickles[-1]!r:.80}")


def _check_places(members: list[zipfile.ZipInfo], end: int) -> None:
    """Check that no member reaches into the next one, or into the directory, which begins at byte `end`."""
    ordered = sorted(members, key=lambda member: member.header_offset)
    for member, following in zip(ordered, [*(other.header_offset for other in ordered[1:]), end], strict=True):
        if member.header_offset + _LOCAL_HEADER.size + member.file_size > following:
            raise UnsafeError(f"its member {member.filename!r:.80} reaches into what follows it")


def _check_kind(members: list[zipfile.ZipInfo]) -> None:
    """Refuse the archives that other programs write, by their names, before anything else is found odd in them."""
    if any(member.filename.split("/")[1:2] in (["code"], ["constants.pkl"]) for member in members):
        raise UnsafeError(
            "it is a TorchScript archive, which holds a program and not only weights",
            hint="load it with torch.jit.load where you trust it, and torch.save its state_dict()",
        )
    if members and all(member.filename.endswith(".npy") for member in members):
        raise UnreadableError(
            "is a NumPy archive, not weights that can be read here", hint="give the torch or safetensors weights"
        )


def _check_sizes(members: list[zipfile.ZipInfo], size: int) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise UnsafeError(f"its member {member.filename!r:.80} is compressed, and torch.save never compresses")
        if member.flag_bits & 0x1:
            raise UnsafeError(f"its member {member.filename!r:.80} is encrypted")
    total = sum(member.file_size for member in members)
    if total > size:
        raise UnsafeError(f"its members claim {total} bytes in a file of {size}")
    if members and min(member.header_offset for member in members) != 0:
        raise UnsafeError("there is something in front of its first member")


def _check_names(members: list[zipfile.ZipInfo]) -> None:
    seen: set[str] = set()
    for member in members:
        name = member.filename
        if name in seen:
            raise UnsafeError(f"its member {name!r:.80} occurs twice")
        seen.add(name)
        parts = name.split("/")
        odd = name != member.orig_filename or "\\" in name
        if odd or name.startswith("/") or ".." in parts or len(parts) < 2:
            raise UnsafeError(f"its member {member.orig_filename!r:.80} lies outside the archive's own folder")
    if len({name.partition("/")[0] for name in seen}) > 1:
        raise UnsafeError("its members lie in several folders")
