"""Output that appears whole or not at all, and the file formats written.

A file or folder is first written under a temporary name beside its target, flushed to the disk, and then renamed: who
reads the target sees the old output or the new one, also after a crash.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import secrets
import shutil
import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from spgsurgeon.errors import SurgeonError, UsageError

# A folder with one of these is a model, grafted, run, report or comparison folder, so --force may replace it.
_OWN_FILES = ("config.json", "graft.json", "model.safetensors", "recipe.yaml", "report.json", "compare-plan.json")

_HERE, _RENAME_EXCHANGE = -100, 2  # of Linux' renameat2: AT_FDCWD, and its flag


@contextmanager
def atomic_file(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary path to write to, in the folder of `path`; leaving the block renames it to `path`.

    Whatever fails, `path` keeps its older content and the temporary file is gone. Missing parent folders are made.
    Raises UsageError where `path` exists and `force` is not given, SurgeonError where the disk is full or refuses.
    """
    target = _target(path, force)
    if target.is_dir():
        raise UsageError(f"{path} is a folder, but a file is to be written", hint="give a file name")
    with write_failures(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(target)
        try:
            yield temporary
            _sync(temporary)
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        _sync(target.parent)


def refuse_existing(path: Path, *, force: bool) -> None:
    """Raise UsageError where `path` exists and `force` is not given: at once, and not only when the work is done."""
    _target(path, force)


@contextmanager
def atomic_folder(path: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield a temporary folder to fill, beside `path`; leaving the block syncs every file in it and renames it.

    Whatever fails, `path` keeps its older content and the temporary folder is gone. `force` replaces an older folder
    if it is empty or looks like a model, grafted, run, report or comparison folder; anything else is refused with
    UsageError.
    """
    target = _target(path, force)
    _check_replaceable(target)
    with write_failures(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(target)
        temporary.mkdir()
        try:
            yield temporary
            _sync_tree(temporary)
            _swap(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def refuse_overwriting_input(output: Path, inputs: Iterable[Path]) -> None:
    """Raise UsageError where `output` is one of the inputs, lies inside one, or contains one (all links resolved)."""
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


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file; equal tensors give equal bytes. Tensors that share memory are written one by one.

    `metadata` has at most one key ({"format": "pt"} by default): the format does not fix the order of more.
    """
    metadata = {"format": "pt"} if metadata is None else dict(metadata)
    assert len(metadata) <= 1, "several metadata keys are not written in a fixed order"
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file(_unshared(tensors), path, metadata)
    except SafetensorError as error:
        raise _os_error(error) or error from error
    path.chmod(mode)  # save_file replaces the file by one that only its owner can read


def write_torch(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write an OrderedDict of plain CPU tensors with torch.save; equal tensors give equal bytes.

    A view is written without the rest of the storage it looks at; tied tensors stay tied.
    """
    document = OrderedDict((key, _compact(tensor)) for key, tensor in tensors.items())
    with path.open("wb") as file:  # given a path, torch.save would put its name into the file
        try:
            torch.save(document, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document for people to read: two spaces of indent, keys in the order given, final newline."""
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


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
    if any(target.iterdir()) and not any((target / name).exists() for name in _OWN_FILES):
        raise UsageError(
            f"{target} is not replaced, even with --force: it has none of {', '.join(_OWN_FILES)}",
            hint="give another output, or remove that folder yourself",
            code="not-replaceable",
        )


def _temporary_beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")


def _swap(new: Path, target: Path) -> None:
    """Rename `new` to `target`; an older `target` is at `new` afterwards, or gone."""
    if not target.exists():
        os.rename(new, target)
    elif not _exchange(new, target):
        _swap_in_two_steps(new, target)
    _sync(target.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step; False where the system or the file system knows no such step."""
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

    Killed in between, the older folder is left under a temporary name beside the target.
    """
    old = _temporary_beside(target)
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
