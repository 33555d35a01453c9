"""The zip container of torch.save, checked member by member before anything inside it is read."""

from __future__ import annotations

import zipfile
from pathlib import Path, PurePosixPath

from spgsurgeon.errors import DamagedFileError, UnsafeInputError, UsageError


def read_pickle(path: Path) -> bytes:
    """Return the bytes of `data.pkl`, the one pickle of a torch archive, after checking every member.

    Refuses, before a byte is read from a member: compressed or encrypted members, names that leave the archive's one
    folder, names that occur twice, members that overlap or claim more bytes than the file has, pickles beside
    `data.pkl`, TorchScript programs (UnsafeInputError), zip archives that torch.save did not write (UsageError), and
    archives that are cut off (DamagedFileError).
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(_check_members(path, archive))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DamagedFileError(
            f"{path} is damaged: it begins like a zip archive but is cut off or contradicts itself ({error})",
            hint="copy or download it again",
        ) from error


def _check_members(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Check every member; return that of the pickle."""
    members = archive.infolist()
    _check_sizes(path, members)
    _check_names(path, [member.filename for member in members])
    pickles = [member for member in members if member.filename.endswith(".pkl")]
    if not pickles:
        raise UsageError(
            f"{path} is a zip archive without data.pkl, so torch.save did not write it",
            hint="unpack it, and give the weights file inside",
        )
    if len(pickles) > 1 or PurePosixPath(pickles[0].filename).parts[1:] != ("data.pkl",):
        raise _unsafe(path, f"it holds other pickles than its own data.pkl: {pickles[-1].filename!r}")
    return pickles[0]


def _check_sizes(path: Path, members: list[zipfile.ZipInfo]) -> None:
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise _unsafe(path, f"its member {member.filename!r} is compressed, and torch.save never compresses")
        if member.flag_bits & 0x1:
            raise _unsafe(path, f"its member {member.filename!r} is encrypted")
    total, size = sum(member.file_size for member in members), path.stat().st_size
    if total > size:
        raise _unsafe(path, f"its members claim {total} bytes in a file of {size}")
    if members and min(member.header_offset for member in members) != 0:
        raise _unsafe(path, "there is something in front of its first member")


def _check_names(path: Path, names: list[str]) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise _unsafe(path, f"its member {twice!r} occurs twice")
    for name in names:
        parts = name.split("/")
        if name.startswith("/") or "\\" in name or ".." in parts or len(parts) < 2:
            raise _unsafe(path, f"its member {name!r} lies outside the archive's own folder")
    if any(name.split("/")[1] in ("code", "constants.pkl") for name in names):
        raise _unsafe(
            path,
            "it is a TorchScript archive, which holds a program and not only weights",
            hint="load it with torch.jit.load where you trust it, and torch.save its state_dict()",
        )
    if len({name.split("/")[0] for name in names}) > 1:
        raise _unsafe(path, "its members lie in several folders")


def _unsafe(path: Path, reason: str, hint: str = "save the weights again with torch.save") -> UnsafeInputError:
    return UnsafeInputError(f"{path} was not loaded: {reason}", hint=hint)
