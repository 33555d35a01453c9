"""Locks that go with the process that holds them, however it ends: flock on a file.

Where a file system knows no such locks, nobody is kept out, and `FolderLock.works` says so.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
from contextlib import suppress
from pathlib import Path

from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.json_text import as_json

LOCK = ".lock"
"""The file in a folder that its owner holds a lock on."""

_LONGEST = 1000  # bytes that are read of what an owner wrote about itself
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF)  # the last: NFS, for folders
_held: set[int] = set()


class HeldError(Exception):
    """Another process holds the lock."""


def lock(descriptor: int, *, wait: bool = False, shared: bool = False) -> bool:
    """Lock an open file or folder, and return whether its file system knows locks.

    Forked processes (loader workers) let go of it: only this one holds it. A `shared` one keeps out only those that
    are not. Raises HeldError if another process holds it, unless this one is to `wait`.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise HeldError from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return False
    _held.add(descriptor)
    return True


def unlock(descriptor: int) -> None:
    """Close a locked file, and with it its lock."""
    _held.discard(descriptor)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # for copies too, that a process forked just now has
    os.close(descriptor)


def _let_go() -> None:
    """Close what a forked process inherited: a lock lasts as long as any copy of its descriptor is open."""
    for descriptor in _held:
        with suppress(OSError):
            os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


class FolderLock:
    """The right to write into a folder, which one process has at a time; it is held until `release`.

    `left_behind` names the process that had it before and did not come to release it; None if there is none. `works` is
    False if the file system knows no locks.
    """

    def __init__(self, folder: Path) -> None:
        """Take it. Raises UsageError naming the process that has it, OSError where the folder can't be written."""
        self._process = os.getpid()
        self._path = folder / LOCK
        self._descriptor: int | None = None
        self._descriptor, self.works = _locked(self._path, folder)
        self.left_behind = _owner(self._descriptor)
        own = as_json({"host": socket.gethostname(), "process": self._process})
        with suppress(OSError):  # on a full disk the lock is as good without its owner's name
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, own.encode(), 0)

    def moved_to(self, folder: Path) -> None:
        """Take note that the folder has another name now."""
        self._path = folder / LOCK

    def release(self) -> None:
        """Let others have it, and leave no file."""
        if self._descriptor is None or self._process != os.getpid():
            return
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)  # so that it is not taken for left behind where it stays
            if _is(self._path, self._descriptor):
                self._path.unlink()
        unlock(self._descriptor)
        self._descriptor = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __del__(self) -> None:
        self.release()


def check_unowned(folder: Path) -> None:
    """Raise UsageError naming the process that owns a folder, if any does; nothing is taken or written."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        lock(descriptor, shared=True)  # several may ask at once, as the processes of one run do
    except HeldError:
        raise _refusal(folder, _owner(descriptor)) from None
    finally:
        unlock(descriptor)


def _locked(path: Path, folder: Path) -> tuple[int, bool]:
    """Return the open and locked file, which is the one that the path means, and whether locks work there."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            works = lock(descriptor)
            if _is(path, descriptor):  # and not one that its owner removed meanwhile
                return descriptor, works
        except HeldError:
            owner = _owner(descriptor)
            unlock(descriptor)
            raise _refusal(folder, owner) from None
        except BaseException:
            unlock(descriptor)
            raise
        unlock(descriptor)


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _owner(descriptor: int) -> str | None:
    """Return who a lock's file names; None for an empty one. It may hold anything, and be half written."""
    text = os.pread(descriptor, _LONGEST, 0)
    if not text:
        return None
    try:
        said = json.loads(text)
        host, process = str(said["host"]), int(said["process"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return "another process"
    return f"process {process} on {host if host.isprintable() else ascii(host)}"


def _refusal(folder: Path, owner: str | None) -> UsageError:
    return UsageError(
        f"{folder} is in use: {owner or 'another process'} writes there",
        hint="wait for it or stop it, or give another output",
    )
