"""Which other sets of the model's weights lie in a file beside the chosen one, under whatever name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from spgsurgeon.checkpoint.containers.documents import Document
from spgsurgeon.checkpoint.state_dict.choosing import Choice, is_state_dict
from spgsurgeon.checkpoint.state_dict.layouts import COUNTERS, text
from spgsurgeon.checkpoint.state_dict.prefixes import unwrap
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
from spgsurgeon.errors import DamagedFileError, UsageError

_DEPTH = 3  # `ema.module` of detectors, `callbacks.EMA.state_dict` of Lightning's
_MOST_LOOKED_AT = 10_000  # dictionaries; an optimizer has one a parameter
_MOST_NAMED = 8
_SHARED = 0.5  # of the model's keys: an average of the parameters alone lacks the running statistics

Place = tuple[str, ...]


def sets_beside(document: Document, choice: Choice, chosen: Mapping[str, TensorSpec]) -> tuple[str, ...]:
    """Return the names, as --weights takes them, of other state dicts with the keys of the chosen weights.

    Wrappers' names in the keys make no difference, and half of the keys are enough. The pair that is known as raw and
    ema is left out.
    """
    wanted, own = set(unwrap(chosen).keys), _at(document.values, choice.place)
    known = ((), document.layout.raw, document.layout.ema)
    found = [
        ".".join(place)
        for place, section in _dictionaries(document.values)
        if place not in known and section is not own and _shares(section, wanted) and is_state_dict(document, section)
    ]
    return tuple(found[:_MOST_NAMED])


def lists_beside(document: Document, chosen: Mapping[str, TensorSpec]) -> tuple[str, ...]:
    """Return the places of lists of tensors of the model's shapes: averages by order, whose keys nothing tells."""
    shapes = {spec.shape for spec in chosen.values()} - {()}  # a list of scalars is a history of losses

    def of_the_model(values: Any) -> bool:
        return isinstance(values, list) and len(values) > 1 and all(_shape(document, v) in shapes for v in values)

    found = [
        ".".join((*place, name))
        for place, section in _dictionaries(document.values)
        for name, value in section.items()
        if text(name) and of_the_model(value)
    ]
    return tuple(found[:_MOST_NAMED])


def _shape(document: Document, value: object) -> tuple[int, ...] | None:
    try:
        spec = document.spec_of("", value)
    except (UsageError, DamagedFileError):  # a tensor that can't be read; no concern of whoever reads other weights
        return None
    return spec.shape if spec else None


def _shares(section: Mapping[Any, Any], wanted: set[str]) -> bool:
    keys = [key for key in section if isinstance(key, str) and key not in COUNTERS]
    enough = _SHARED * len(wanted)
    return len(keys) >= enough and len(wanted.intersection(unwrap(keys).keys)) >= enough


def _at(values: Any, place: Place) -> Any:
    for key in place:
        values = values[key]
    return values


def _dictionaries(values: Mapping[Any, Any]) -> Iterator[tuple[Place, Mapping[Any, Any]]]:
    """Yield the dictionaries of a document with their places, breadth first, each once and the document's own first."""
    level: list[tuple[Place, Mapping[Any, Any]]] = [((), values)]
    seen = {id(values)}
    for _ in range(_DEPTH + 1):
        yield from level
        below = []
        for place, section in level:
            for name, value in section.items():
                if isinstance(value, Mapping) and id(value) not in seen and text(name) and len(seen) < _MOST_LOOKED_AT:
                    seen.add(id(value))
                    below.append(((*place, name), value))
        level = below
