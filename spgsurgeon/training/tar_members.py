"""The plain files in a tar archive, found by its headers alone: nothing is extracted, no name is followed.

Reads ustar, GNU and pax headers. Python's tarfile, which reads the same, takes four times as long and keeps an object
for every file; data sets have millions. Sizes and places are in bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from spgsurgeon.errors import DamagedFileError, UsageError

_BLOCK = 512
_EMPTY_BLOCK = bytes(_BLOCK)
_LONGEST_NAME = 2**20  # of a header that holds one
_LONGEST_NUMBER = 20  # digits
_FILES, _FOLDER, _SPARSE = (b"0", b"\0", b"7"), b"5", b"S"
_PAX, _PAX_FOR_ALL, _LONG_NAME, _LONG_LINK = b"x", b"g", b"L", b"K"
_BEFORE_A_FILE = (_PAX, _PAX_FOR_ALL, _LONG_NAME, _LONG_LINK)
_NOT_FILES = {b"1": "a hard link", b"2": "a symbolic link", _SPARSE: "a sparse file"}
_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x04\x22\x4d\x18": "lz4",
    b"\xfd7zXZ\0": "xz",
    **{b"BZh%d1AY&SY" % level: "bzip2" for level in range(1, 10)},
}


class Member(NamedTuple):
    """A plain file: its name, and where its content lies in the archive."""

    name: str
    offset: int
    size: int


def members(file: BinaryIO, path: Path) -> Iterator[Member]:
    """Return the plain files of the archive open at `file`, in their order; `path` is what messages call it.

    When a member is given out, the file stands at its content; it may be read and moved freely. Folders are left out.
    Raises UsageError for a compressed archive and for members that are neither files nor folders, DamagedFileError for
    one that is truncated, has a header that can't be, or goes on after its end.
    """
    length = os.fstat(file.fileno()).st_size
    _check_plain(file.read(_BLOCK), path)
    position = 0
    said: dict[str, bytes] = {}  # by the headers that precede a file's own
    while (header := _read(file, path, position, _BLOCK)) != _EMPTY_BLOCK:
        position += _BLOCK
        try:
            kind, name, size = _parse(header)
            if kind in _BEFORE_A_FILE:
                said |= _extended(kind, _read(file, path, position, _bounded(size)))
            else:
                kind, name, size = _settle(kind, name, size, said)
                said = {}
        except ValueError as error:
            raise _damaged(path, f"at byte {position - _BLOCK}: {error}") from error
        if kind in _FILES:
            text = _text(name)
            if position + size > length:
                raise _damaged(path, f"{text:.200} should end at byte {position + size}, the file has {length}")
            yield Member(text, position, size)
        elif kind not in (_FOLDER, *_BEFORE_A_FILE):
            _refuse(path, kind, _text(name))
        if kind != _FOLDER:
            position += -(-size // _BLOCK) * _BLOCK
    if said:
        raise _damaged(path, f"it ends at byte {position}, where a file should follow")
    _check_nothing_follows(file, path)


def compressed(path: Path, how: str) -> UsageError:
    """Return the error for an archive that is compressed."""
    return UsageError(
        f"{path} is compressed ({how}): its pictures can't be read at random, so training could not resume exactly",
        hint="decompress it to a plain .tar, which will hardly be larger: pictures are compressed themselves",
    )


def _check_plain(start: bytes, path: Path) -> None:
    for magic, how in _COMPRESSED.items():
        if start.startswith(magic):
            raise compressed(path, how)


def _read(file: BinaryIO, path: Path, position: int, size: int) -> bytes:
    file.seek(position)
    data = file.read(size)
    if len(data) < size:
        raise _damaged(path, f"it stops at byte {position + len(data)}, without the mark of an archive's end")
    return data


def _parse(header: bytes) -> tuple[bytes, bytes, int]:
    """Return kind, name and size. Raises ValueError for what is no header."""
    checksum = header[148:156]
    if _number(checksum) != sum(header) - sum(checksum) + 8 * ord(" "):
        raise ValueError("there is no tar header, or its checksum is wrong")
    name = header[:100].partition(b"\0")[0]
    if header[257:263] == b"ustar\0":  # GNU's own headers, "ustar  \0", have other things there
        prefix = header[345:500].partition(b"\0")[0]
        name = prefix + b"/" + name if prefix else name
    return header[156:157], name, _number(header[124:136])


def _number(field: bytes) -> int:
    """Return a header's number: octal digits, or binary where GNU found them too few."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    number = int(field.partition(b"\0")[0].strip() or b"0", 8)
    if number < 0:
        raise ValueError(f"the number {number} is below zero")
    return number


def _settle(kind: bytes, name: bytes, size: int, said: dict[str, bytes]) -> tuple[bytes, bytes, int]:
    """Return kind, name and size of a file by its header and what the headers before it said."""
    name = said.get("path", name)
    if kind in _FILES and name.endswith(b"/"):  # how the oldest archives tell folders
        kind = _FOLDER
    return _SPARSE if "sparse" in said else kind, name, _decimal(said["size"]) if "size" in said else size


def _bounded(size: int) -> int:
    if size > _LONGEST_NAME:
        raise ValueError(f"a header for a name is {size} bytes long")
    return size


def _extended(kind: bytes, content: bytes) -> dict[str, bytes]:
    """Return what a header says of the file after it: its path, its size, that it is sparse."""
    if kind == _LONG_NAME:
        return {"path": content.partition(b"\0")[0]}
    if kind != _PAX:  # links are refused, and no name or size is for all files
        return {}
    said, start = {}, 0
    while start < len(content):
        digits = content[start : start + _LONGEST_NUMBER].partition(b" ")[0]
        end = start + _decimal(digits)
        key, equals, value = content[start + len(digits) + 1 : end].partition(b"=")
        if end > len(content) or not equals or not value.endswith(b"\n"):
            raise ValueError("its pax header is malformed")
        if key in (b"path", b"size"):
            said[key.decode("ascii")] = value[:-1]
        elif key.startswith(b"GNU.sparse"):
            said["sparse"] = value
        start = end
    return said


def _decimal(digits: bytes) -> int:
    if not digits.isdigit() or len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"{digits[:_LONGEST_NUMBER]!r} is no size")
    return int(digits)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def _check_nothing_follows(file: BinaryIO, path: Path) -> None:
    """Raise DamagedFileError where anything but zeros stands after the end: it would be left out without a word."""
    while rest := file.read(_LONGEST_NAME):
        if rest.count(0) < len(rest):
            raise _damaged(path, "it goes on after its end mark, as archives do that were joined into one file")


def _refuse(path: Path, kind: bytes, name: str) -> None:
    what = _NOT_FILES.get(kind, f"a member of type {kind.decode('ascii', 'backslashreplace')!r}")
    raise UsageError(
        f"{path} can't be read: {name!r:.200} is {what}, no plain one",
        hint="pack the files themselves (GNU tar: --dereference --hard-dereference)",
    )


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: {reason}", hint="copy, download or pack it again")
