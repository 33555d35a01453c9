"""What a config.json says about the data that its weights were trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from spgsurgeon.checkpoint import CONFIG, STATE
from spgsurgeon.errors import DamagedFileError
from spgsurgeon.loading.locating import Located
from spgsurgeon.recipe import known_class_map

Read = TypeVar("Read")
IGNORED, VALUES, RANGE = "ignored_mask_values", "mask_values", "value_range"  # in config.json
MAP = "class_map"
UNTRAINED = "untrained"
"""What a grafted folder, or a model's config.json, calls the parameters that have learned nothing yet."""
EVERYTHING = ("*",)


def label_names_in(config: Mapping[str, Any], classes: int) -> list[str] | None:
    """Return the names of the classes by label; timm may have the name of a data set in their place."""
    names = config.get("label_names") or (config.get("pretrained_cfg") or {}).get("label_names")
    return names if isinstance(names, list) and len(names) == classes else None


def ignored_in(config: Mapping[str, Any], source: str) -> tuple[int, ...]:
    """Return the mask values that were not scored in training."""
    values = config.get(IGNORED, [])
    if not isinstance(values, list) or not all(type(value) is int and value >= 0 for value in values):
        raise DamagedFileError(f"the {CONFIG} of {source} is damaged: {IGNORED} is not a list of numbers")
    return tuple(values)


def known_table(value: Any) -> dict[str, str] | None:
    """Return a class map, checked as a recipe's. Raises ValueError for anything else, such as the name of a file."""
    found = known_class_map(value)
    if isinstance(found, str):
        raise ValueError("a document beside weights names no file, only names of classes")
    return found


def untrained_in(located: Located) -> tuple[str, ...]:
    """Return the parameters that a grafted folder, or a config.json, says to be new; those of a run have learned."""
    of_a_run = located.folder is not None and (located.folder / STATE).is_file()
    said = located.manifest.base if located.manifest else located.config or {}
    names = [] if of_a_run else said.get(UNTRAINED, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DamagedFileError(f"{located.source} is damaged: {UNTRAINED} is not a list of names")
    return tuple(names)


def said_of_data(config: Mapping[str, Any], source: str, key: str, known: Callable[[Any], Read | None]) -> Read | None:
    """Return what the config.json of `source` says of the data in training, checked as a recipe's is."""
    try:
        return known(config.get(key))
    except ValueError as error:
        raise DamagedFileError(f"the {CONFIG} of {source} is damaged: {key}: {error}") from error
