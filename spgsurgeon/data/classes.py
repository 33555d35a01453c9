"""Whether data and model have the same classes, and who says which the data has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spgsurgeon.data.sources.class_names import CLASS_NAMES
from spgsurgeon.data.sources.source import Source
from spgsurgeon.errors import UsageError


def classes_said_by(form: str, root: str | Path | None, classes: Sequence[str] | int | None = None) -> str | None:
    """Return what says which classes the data has, by name: the recipe's `classes`, or a file; None: the data does."""
    if classes is not None:
        return "data.classes"
    if form not in ("masks", "wds") or root is None:
        return None
    file = Path(root).expanduser() / CLASS_NAMES
    return str(file) if file.is_file() else None


def check_classes(source: Source[Any], num_classes: int, model: str, hint: str, *, said_by: str | None = None) -> None:
    """Raise UsageError, with this hint, where the data has other classes than the model; see `classes_said_by`."""
    classes = len(source.classes)
    if classes == num_classes:
        return
    if said_by is None:
        raise UsageError(f"{source.name} has {classes} classes, {model} has {num_classes}", hint=hint)
    raise UsageError(
        f"{said_by} says {classes} classes, {model} has {num_classes}",
        hint=f"correct {said_by} if the data has {num_classes} classes; else {hint}",
    )
