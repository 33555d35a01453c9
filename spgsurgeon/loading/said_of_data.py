"""What a config.json says about the data that its weights were trained on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import DamagedFileError
from spgsurgeon.loading.locating import Located
from spgsurgeon.models import (
    Identity,
)
from spgsurgeon.recipe import known_class_map

Read = TypeVar("Read")
IGNORED, VALUES, RANGE = "ignored_mask_values", "mask_values", "value_range"  # in config.json
MAP = "class_map"


def label_names_in(located: Located, identity: Identity) -> list[str] | None:
    """Return the names of the classes by label; timm may have the name of a data set in their place."""
    config = located.config or {}
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    return names if isinstance(names, list) and len(names) == identity.num_classes else None


def ignored_in(located: Located) -> tuple[int, ...]:
    """Return the mask values that were not scored in training."""
    values = (located.config or {}).get(IGNORED, [])
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise DamagedFileError(f"the {CONFIG} of {located.source} is damaged: {IGNORED} is no list of numbers")
    return tuple(values)


def known_table(value: Any) -> dict[str, str] | None:
    """Return a class map, checked as a recipe's. Raises ValueError for anything else, such as the name of a file."""
    found = known_class_map(value)
    if isinstance(found, str):
        raise ValueError("a config.json names no file")
    return found


def said_of_data(located: Located, key: str, known: Callable[[Any], Read | None]) -> Read | None:
    """Return what the config.json says of the data that the weights were trained on, checked as a recipe's is."""
    try:
        return known((located.config or {}).get(key))
    except ValueError as error:
        raise DamagedFileError(f"the {CONFIG} of {located.source} is damaged: {key}: {error}") from error
