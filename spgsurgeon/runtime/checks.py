"""One finding of `doctor`: what was looked at, how it stands, what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """A finding. A `problem` keeps a command from working, a `warning` makes one slower or less than it could be."""

    name: str
    status: Status
    message: str
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)


def first_line(error: BaseException) -> str:
    """Return what an error of a library says, as one line."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}".removesuffix(": ")
