"""Which values two documents have otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def differing(one: Any, other: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Return the values that two documents, such as recipes, have otherwise, by dotted key; None for what one lacks."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in dict.fromkeys([*one, *other]):
            found |= differing(one.get(key), other.get(key), f"{path}.{key}")
        return found
    return {} if one == other else {path.removeprefix("."): (one, other)}
