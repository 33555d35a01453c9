"""What readers find wrong in what they read, said without the file's name; whoever opened the file adds it, once.

Readers are given an open file, bytes or a parsed document, and raise the errors below. They are errors of the kinds
that users see, so nothing is lost where no name is known.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError


class MalformedError(DamagedFileError):
    """What is read is cut off or contradicts itself. The reason is a clause: "its header is not JSON"."""

    def __init__(self, reason: str, *, hint: str = "copy or download it again", **rest: Any) -> None:
        super().__init__(reason, hint=hint, **rest)


class UnsafeError(UnsafeInputError):
    """What is read asks for more than weights need. The reason is a clause: "its members lie in several folders"."""

    def __init__(self, reason: str, *, hint: str = "save the weights again with torch.save", **rest: Any) -> None:
        super().__init__(reason, hint=hint, **rest)


class UnreadableError(UsageError):
    """What is read is sound and can't be used here. The reason is a predicate: "is a tar archive, not weights"."""

    def __init__(self, reason: str, *, hint: str | None = None, code: str = "unusable-file") -> None:
        super().__init__(reason, hint=hint, code=code)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name the file in the errors of those who read it. An error that has a name already keeps that one alone."""
    try:
        yield
    except MalformedError as error:
        raise DamagedFileError(f"{path} is damaged: {error.message}", **error.rest) from error
    except UnsafeError as error:
        raise UnsafeInputError(f"{path} was not loaded: {error.message}", **error.rest) from error
    except UnreadableError as error:
        raise UsageError(f"{path} {error.message}", **error.rest) from error
    except OSError as error:
        raise SurgeonError(f"{path} can't be read: {error.strerror or error}", code="unreadable-file") from error
