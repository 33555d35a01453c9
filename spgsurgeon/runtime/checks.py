"""One finding of `doctor`: what was looked at, how it stands, what to do."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from spgsurgeon.errors import first_line

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


def in_a_line(error: BaseException) -> str:
    """Return an error's type and the first line of what it says."""
    kind, said = type(error).__name__, first_line(error)
    return kind if said == kind else f"{kind}: {said}"
