"""What readers find wrong in what they read, said without the file's name; whoever opened the file adds it, once.

Readers are given an open file, bytes or a parsed document, and raise the errors below. They are errors of the kinds
that users see, so nothing is lost where no name is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError


class MalformedError(DamagedFileError):
    """What is read is cut off or contradicts itself. The reason is a clause: "its header is not JSON"."""

    def __init__(self, reason: str, *, hint: str = "copy or download it again") -> None:
        super().__init__(reason, hint=hint)


class UnsafeError(UnsafeInputError):
    """What is read asks for more than weights need. The reason is a clause: "its members lie in several folders"."""

    def __init__(self, reason: str, *, hint: str = "save the weights again with torch.save", **details: Any) -> None:
        super().__init__(reason, hint=hint, **details)


class UnreadableError(UsageError):
    """What is read is sound and can't be used here. The reason is a predicate: "is a tar archive, not weights"."""


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the errors of those who read it. An error that has a name already keeps that one alone."""
    try:
        yield
    except MalformedError as error:
        raise DamagedFileError(f"{path} is damaged: {error.message}", hint=error.hint) from error
    except UnsafeError as error:
        raise UnsafeInputError(f"{path} was not loaded: {error.message}", hint=error.hint, **error.details) from error
    except UnreadableError as error:
        raise UsageError(f"{path} {error.message}", hint=error.hint) from error
    except OSError as error:
        raise SurgeonError(f"{path} can't be read: {error.strerror or error}") from error


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file for its readers, who seek in it as they like, and name it in their errors."""
    with naming(path), path.open("rb", buffering=0) as file:
        yield file
