"""The plain files in a tar archive, by its headers alone: nothing is extracted, no name is followed.

Python's tarfile reads the headers. It stops in silence where one is damaged, so that the rest of a data set would be
missing: what stands at the end of the last file is looked at here. Sizes and places are in bytes.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from spgsurgeon.errors import DamagedFileError, UsageError

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 2**20
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
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:", encoding="utf-8", errors="backslashreplace") as archive:
            kept: Any = archive
            for info in archive:
                kept.members.clear()  # it would keep an object for every file
                if info.isdir():
                    continue
                if not info.isreg() or info.issparse():
                    raise _no_plain_file(path, info)
                if info.size < 0 or info.offset_data + info.size > length:
                    end = info.offset_data + info.size
                    raise _damaged(path, f"{info.name:.200} should end at byte {end}, the file has {length}")
                file.seek(info.offset_data)
                yield Member(info.name, info.offset_data, info.size)
            end = archive.offset
    except (tarfile.TarError, ValueError, OverflowError) as error:
        raise _damaged(path, str(error)) from error
    _check_end(file, end, path)


def compressed(path: Path, how: str) -> UsageError:
    """Return the error for an archive that is compressed."""
    return UsageError(
        f"{path} is compressed ({how}): its images can't be read at random, so training could not resume exactly",
        hint="decompress it to a plain .tar, which will hardly be larger: images are compressed themselves",
    )


def _check_plain(start: bytes, path: Path) -> None:
    for magic, how in _COMPRESSED.items():
        if start.startswith(magic):
            raise compressed(path, how)


def _check_end(file: BinaryIO, end: int, path: Path) -> None:
    """Raise DamagedFileError unless a block of zeros, the mark of an end, and nothing but zeros follow."""
    file.seek(end)
    mark = file.read(_BLOCK)
    if len(mark) < _BLOCK:
        raise _damaged(path, f"it stops at byte {end + len(mark)}, without the mark of an archive's end")
    if any(mark):
        raise _damaged(path, f"at byte {end} there is no tar header, or its checksum is wrong")
    while rest := file.read(_CHUNK):
        if rest.count(0) < len(rest):
            raise _damaged(path, "it goes on after its end mark, as archives do that were joined into one file")


def _no_plain_file(path: Path, info: tarfile.TarInfo) -> UsageError:
    kinds = {"a symbolic link": info.issym(), "a hard link": info.islnk(), "a sparse file": info.issparse()}
    what = next((kind for kind, it_is in kinds.items() if it_is), f"a member of type {info.type.decode('ascii')!r}")
    return UsageError(
        f"{path} can't be read: {info.name!r:.200} is {what}, no plain one",
        hint="pack the files themselves (GNU tar: --dereference --hard-dereference)",
    )


def _damaged(path: Path, reason: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged: {reason}", hint="copy, download or pack it again")
