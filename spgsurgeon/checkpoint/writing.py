"""Output that appears whole or not at all, and the file formats written.

A file or folder is first written under a temporary name beside its target, flushed to the disk, and then renamed: who
reads the target sees the old output or the new one, also after a crash.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spgsurgeon.checkpoint.layout import CONFIG
from spgsurgeon.checkpoint.ownership import check_ours, grows, record, temporary_of, temporary_stem
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.runtime import LOCK, FolderLock, HeldError, as_json, check_unowned, lock, unlock

_HERE, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2: AT_FDCWD, and its flag


@contextmanager
def atomic_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, on the disk of `path`; leaving the block renames it to `path`.

    Whatever fails, `path` keeps its older content and the temporary file is gone. Missing parent folders are made.
    Raises UsageError if `path` exists and `force` is not given, SurgeonError where the disk is full or refuses.
    """
    target = _target(path, force)
    if target.is_dir():
        raise UsageError(f"{path} is a folder, but a file is to be written", hint="give a file name")
    with write_failures(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(target) as folder:
            temporary = folder / target.name
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
        _sync(target.parent)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise what the writing would end with where `path` exists: at once, and not only when the work is done.

    That is UsageError without `force`, and with it for a folder that holds what others put there or that is in use.
    """
    target = _target(path, force)
    if target.is_dir():
        _check_replaceable(target)
        check_unowned(target)


@contextmanager
def atomic_folder(path: Path, *, force: bool = False, later: Iterable[str] = ()) -> Iterator[Path]:
    """Yield a temporary folder to fill, beside `path`; leaving the block syncs every file in it and renames it.

    Whatever fails, `path` keeps its older content and the temporary folder is gone. `force` replaces an older folder
    whose record (see `ownership`) names all that is in it; any other is refused with UsageError, unless it is empty,
    and so is one that another process has locked. `later` are patterns of what will come into the folder.
    """
    target = _target(path, force)
    replaces = target.exists()
    _check_replaceable(target)
    with write_failures(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with _temporary_beside(target) as temporary:
            yield temporary
            record(temporary, target.name, later)
            _sync_tree(temporary)
            if replaces and target.exists():
                with _locked(target):
                    _check_replaceable(target)
                    _swap(temporary, target)
            else:
                _rename_new(temporary, target)


def own_folder(folder: Path, warn: Callable[[str], None]) -> FolderLock:
    """Return the lock on a folder, which is held as long as that is kept; `warn` is told of what is odd about it.

    Raises UsageError naming the process that has it.
    """
    with write_failures(folder / LOCK):
        owned = FolderLock(folder)
    if owned.left_behind:
        warn(f"{owned.left_behind} ended without leaving {folder} in order; its lock is taken over")
    if not owned.works:
        warn(f"the file system of {folder} knows no locks: take care that no other process writes there")
    return owned


def sweep(folder: Path, outputs: Callable[[str], bool]) -> None:
    """Remove temporaries of such outputs in a folder, by their names, that killed processes left there."""
    with os.scandir(folder) as entries:
        found = [Path(entry.path) for entry in entries if outputs(temporary_of(entry.name) or "")]
    for path in found:
        if path.is_dir() and not path.is_symlink():
            _sweep(path)


def refuse_overwriting_input(output: Path, inputs: Iterable[Path]) -> None:
    """Raise UsageError if `output` is one of the inputs, lies inside one, or contains one (all links resolved).

    Inputs are what a command reads: models, recipes and data.
    """
    target = output.resolve()
    for given in inputs:
        source = given.resolve()
        same = target == source or (target.exists() and source.exists() and target.samefile(source))
        if same or source in target.parents or target in source.parents:
            raise UsageError(
                f"the output {output} would overwrite the input {given}, and inputs are never written to",
                hint="choose an output elsewhere",
                code="overwrites-input",
            )


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> None:
    """Write a safetensors file; equal tensors give equal bytes. Tensors that share memory are written one by one.

    `config` is the config.json that it carries in its metadata.
    """
    metadata = {"format": "pt"} if config is None else {CONFIG: as_json(config), "format": "pt"}
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(_unshared(tensors), path, metadata)
    except SafetensorError as error:
        raise _os_error(error) or error from error
    path.chmod(mode)  # save_file replaces the file by one that only its owner can read
    _in_order(path, metadata)


def _in_order(path: Path, metadata: Mapping[str, str]) -> None:
    """Put the metadata of a safetensors file in order: the format's writer has them in another one each time."""
    entries = [f"{as_json(key)}:{as_json(value)}" for key, value in metadata.items()]
    orders = [f'{{"__metadata__":{{{",".join(order)}}}'.encode() for order in permutations(entries)]
    with path.open("r+b") as file:
        file.seek(8)  # behind the length of the header
        if file.read(len(orders[0])) in orders:
            file.seek(8)
            file.write(orders[0])


def write_torch(path: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> None:
    """Write an OrderedDict of plain CPU tensors with torch.save; equal tensors give equal bytes.

    A view is written without the rest of the storage it looks at; tied tensors stay tied. `config` is the config.json
    that lies in the archive beside the object: torch.load gives the state dict alone, with or without it.
    """
    document = OrderedDict((key, _compact(tensor)) for key, tensor in tensors.items())
    with path.open("w+b") as file:  # given a path, torch.save would put its name into the file
        try:
            torch.save(document, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
        if config is not None:
            with zipfile.ZipFile(file, "a") as archive:
                root = archive.namelist()[0].partition("/")[0]
                archive.writestr(zipfile.ZipInfo(f"{root}/{CONFIG}"), as_json(config))


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document for people to read: two spaces of indent, keys in the order given, final newline."""
    path.write_text(as_json(document, indent=2) + "\n", encoding="utf-8")


def _target(path: Path, force: bool) -> Path:
    """Return where `path` really is, links resolved, if it may be written."""
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists", hint="give another output, or --force to replace it", code="output-exists")
    return path.resolve()


def _check_replaceable(target: Path) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise UsageError(f"{target} is a file, but a folder is to be written", hint="give another output")
    check_ours(target)


@contextmanager
def _temporary_beside(target: Path) -> Iterator[Path]:
    """Yield a new folder beside `target`, gone after the block, after sweeping what killed processes left of such.

    It is locked, so that nobody sweeps it: a lock goes with its process.
    """
    sweep(target.parent, temporary_stem(target.name).__eq__)
    temporary, descriptor = _new_locked_folder(target)
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        unlock(descriptor)


def _new_locked_folder(target: Path) -> tuple[Path, int]:
    while True:
        temporary = target.with_name(f".{temporary_stem(target.name)}.{secrets.token_hex(4)}.tmp")
        temporary.mkdir()
        descriptor = os.open(temporary, os.O_RDONLY)
        with suppress(HeldError):  # by another process, which took it for left behind before it was locked
            lock(descriptor)
            if temporary.exists():
                return temporary, descriptor
        unlock(descriptor)


def _sweep(temporary: Path) -> None:
    """Remove a temporary folder unless its process lives."""
    try:
        descriptor = os.open(temporary, os.O_RDONLY)
    except OSError:
        return
    try:
        if lock(descriptor):
            shutil.rmtree(temporary, ignore_errors=True)
    except HeldError:
        pass
    finally:
        unlock(descriptor)


@contextmanager
def _locked(target: Path) -> Iterator[None]:
    """Own a folder while it is replaced, if it can have an owner. Raises UsageError if another process is that."""
    check_unowned(target)
    with FolderLock(target) if grows(target) else nullcontext():
        yield


def _rename_new(new: Path, target: Path) -> None:
    """Rename `new` to `target`. Raises UsageError if something came there meanwhile."""
    try:
        os.rename(new, target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise
        raise UsageError(f"{target} came to be meanwhile, by another process", hint="give another output") from error
    _sync(target.parent)


def _swap(new: Path, target: Path) -> None:
    """Let `new` take the place of `target`, which is at `new` afterwards, or gone."""
    if not _exchange(new, target):
        _swap_in_two_steps(new, target)
    _sync(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; False if the system or the file system knows no such step."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if rename is None:
        return False
    if rename(_HERE, os.fsencode(first), _HERE, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP):
        return False
    raise OSError(number, os.strerror(number), str(second))


def _swap_in_two_steps(new: Path, target: Path) -> None:
    """Put the older `target` aside first, and back where the renaming of `new` fails.

    Killed in between, the older folder is left beside the target, under a name that nobody sweeps.
    """
    old = target.with_name(f".{temporary_stem(target.name)}.{secrets.token_hex(4)}.old")
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(old, target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for parent, _, files in os.walk(folder):
        for name in files:
            if not os.path.islink(os.path.join(parent, name)):
                _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_failures(target: Path) -> Iterator[None]:
    """Give failures of the operating system a short message that names the target."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            message, hint = f"disk full: {target} was not written", f"free some space under {target.parent}"
            raise SurgeonError(message, hint=hint, code="disk-full") from error
        raise SurgeonError(f"{target} was not written: {error.strerror or error}", code="not-written") from error


def _os_error(error: SafetensorError) -> OSError | None:
    """Return the failure of the operating system behind an error of safetensors, which only names it in its text."""
    found = re.search(r"os error (\d+)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def _compact(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous()
    fits = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()
    return tensor if fits else tensor.clone()


def _unshared(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    seen: set[int] = set()
    unshared = {}
    for key, tensor in tensors.items():
        compact = _compact(tensor)
        if compact.data_ptr() in seen:
            compact = compact.clone()
        seen.add(compact.data_ptr())
        unshared[key] = compact
    return unshared
