"""A disk that fails, or a machine that stops, at the n-th thing that is done to the disk."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from spgsurgeon.checkpoint import writing

ERRORS = (errno.ENOSPC, errno.EIO)
KILLED = 9


class Faults:
    """Counts the calls that change the disk; at number `at` it does `act` instead, or after half of what is written."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        self.at, self.act = at, act
        self.calls: list[str] = []

    @property
    def fired(self) -> bool:
        return len(self.calls) > self.at

    @property
    def renamed(self) -> bool:
        """Whether anything had got its final name before."""
        return any(call in ("rename", "replace", "_exchange") for call in self.calls[: self.at])

    def reached(self, name: str, target: Path | None = None) -> None:
        self.calls.append(name)
        if len(self.calls) == self.at + 1:
            if target is not None:
                with open(target, "wb") as file:
                    file.write(b"half of it")
            self.act()


def _points(faults: Faults) -> Iterator[tuple[Any, str, Any]]:
    """Yield what is replaced, and by what."""
    for name in ("fsync", "rename", "replace", "symlink", "mkdir"):
        yield os, name, _before(faults, name, getattr(os, name))
    yield writing, "_exchange", _before(faults, "_exchange", writing._exchange)
    save_file, save, write_text = writing.save_file, torch.save, Path.write_text

    def saved_file(tensors: Any, path: Path, metadata: Any) -> None:
        faults.reached("save_file", path)
        save_file(tensors, path, metadata)

    def saved(document: Any, file: Any) -> None:
        faults.reached("torch.save", Path(file.name))
        save(document, file)

    def written(self: Path, text: str, **options: Any) -> int:
        faults.reached("write_text", self)
        return write_text(self, text, **options)

    yield writing, "save_file", saved_file
    yield torch, "save", saved
    yield Path, "write_text", written


def _before(faults: Faults, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def reached(*arguments: Any, **options: Any) -> Any:
        faults.reached(name)
        return call(*arguments, **options)

    return reached


@contextmanager
def faults_at(at: int, act: Callable[[], None]) -> Iterator[Faults]:
    faults = Faults(at, act)
    with ExitStack() as stack:
        for owner, name, replacement in list(_points(faults)):
            stack.enter_context(mock.patch.object(owner, name, replacement))
        yield faults


def fail_with(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


def in_another_process(job: Callable[[], object]) -> int:
    """Run a job in a fork of this process and return its exit status: `KILLED` if it was, 0 at its end."""
    with warnings.catch_warnings(action="ignore"):  # of a fork while threads may run: the child starts no other
        child = os.fork()
    if child == 0:
        status = 1
        try:
            job()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at(at: int, job: Callable[[], object]) -> bool:
    """Run a job in another process that is gone at call number `at`; False if the job has fewer."""

    def hunted() -> None:
        with faults_at(at, lambda: os._exit(KILLED)):
            job()

    status = in_another_process(hunted)
    assert status in (0, KILLED)
    return status == KILLED
