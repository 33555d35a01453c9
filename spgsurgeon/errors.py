"""What can go wrong, and the exit code each kind of failure ends with.

A message says what was asked and what was found; a hint says what to do next. Lower floors raise, only `cli` catches.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class SurgeonError(Exception):
    """A failure with a short message for people, a hint, and an exit code and a `code` for scripts.

    `code` names the failure in kebab-case ("output-exists") and stays the same when the message is reworded; without
    one it is the kind. `details` are extra keys for the JSON error document (lists of names, say); they must be
    JSON-serialisable.
    """

    kind = "failed"
    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None, **details: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = details
        self._code = code

    @property
    def code(self) -> str:
        """What went wrong, by a name that scripts and tests can rely on."""
        return self._code or self.kind

    @property
    def rest(self) -> dict[str, Any]:
        """All but the message, as keywords: for raising it anew with more words."""
        return {"hint": self.hint, "code": self._code, **self.details}


class DamagedFileError(SurgeonError):
    """A file is truncated or its content contradicts itself."""

    kind = "damaged-file"


class DataError(SurgeonError):
    """A sample of the user's data can't be used."""

    kind = "data"


class UsageError(SurgeonError):
    """The command, an argument, a path or an option can't be what was meant."""

    kind = "usage"
    exit_code = 2


class RecipeError(UsageError):
    """A recipe does not validate; the message lists every fault at once."""

    kind = "recipe"


class VerificationError(SurgeonError):
    """A law did not hold on the user's own model, so nothing was written."""

    kind = "verification"
    exit_code = 3


class UnsafeInputError(SurgeonError):
    """A file asks for something that reading weights never needs."""

    kind = "unsafe-input"
    exit_code = 4


class ArchitectureError(SurgeonError):
    """The architecture or its head is unknown, ambiguous or not supported."""

    kind = "architecture"
    exit_code = 5


def first_line(error: BaseException) -> str:
    """Return the first line of what an error of a library says; its type if it says nothing."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def closest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return up to `count` of the `known` names that look most like `name`, best first."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.5)


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a hint naming the nearest known names, or None if nothing is near."""
    near = closest(name, known)
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else None
