"""Rows of a table as samples: what is read of each, and its target."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.records.tables import Table
from spgsurgeon.data.sources.source import short_hash


@dataclass(frozen=True, eq=False)
class Rows:
    """See `ImageSource`. `samples` has content and target of each row; the `classes` are told by the targets."""

    name: str
    path: Path
    classes: tuple[str, ...]
    samples: Sequence[tuple[Any, Any]]
    places: Sequence[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, index: int) -> tuple[Any, Any]:
        """See `Source`."""
        return self.samples[index]

    def labels(self) -> NDArray[np.int64]:
        """Return zeros: a whole sample has no class, so samples are held out and limited without regard to any."""
        return np.zeros(len(self), dtype=np.int64)

    def describe(self, index: int) -> str:
        """See `Source`."""
        return self.places[index]

    def file_paths(self) -> Iterable[Path]:
        """See `Source`."""
        return [self.path] if self.path.is_file() else sorted(self.path.glob("*.arrow"))

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [short_hash(repr(self.samples).encode("utf-8", "backslashreplace"))]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return self.marks()


def places_of(table: Table) -> list[str]:
    """Return where each row is, for messages."""
    return [table.describe(row) for row in range(len(table))]
