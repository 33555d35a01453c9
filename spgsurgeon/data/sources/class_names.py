"""What the classes of data are called: names given, written in a file beside it, or counted off its labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from spgsurgeon.data.sources.source import Source, listing
from spgsurgeon.errors import UsageError

Classes = Sequence[str] | int | None
"""Names by label, their number, or None for the names in `CLASS_NAMES`."""
CLASS_NAMES = "classes.txt"


def class_names(root: Path, classes: Classes) -> tuple[str, ...]:
    """Return the names of the classes by label: those given, "0", "1", ... for a number, else the lines of the file.

    Raises UsageError if there is no such file, or a name is empty or there twice.
    """
    if isinstance(classes, int):
        names = [str(number) for number in range(classes)]
    elif classes is not None:
        names = list(classes)
    else:
        names = _read_class_names(root / CLASS_NAMES)
    if not names or not all(names):
        raise UsageError(f"the classes of {root} need a name each, and there has to be one, found {names}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f"the classes of {root} name {listing(twice)} more than once")
    return tuple(names)


def with_classes(source: Source[Any], number: int) -> Source[Any]:
    """Return the source with at least so many classes, if it counted them off its labels; any other as it is.

    The highest label of a split need not be the highest that there is.
    """
    if not getattr(source, "counted", False) or number <= len(source.classes):
        return source
    found: Source[Any] = replace(cast(Any, source), classes=tuple(map(str, range(number))))
    return found


def _read_class_names(path: Path) -> list[str]:
    if not path.is_file():
        raise UsageError(
            f"nothing says which classes the masks in {path.parent} have",
            hint=f"write their names into {path}, one a line, or set data.classes to their number (check: --classes)",
        )
    return [line.strip() for line in path.read_text(encoding="utf-8-sig", errors="replace").strip().splitlines()]
