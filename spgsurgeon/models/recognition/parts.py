"""The parts of a file that can be a model: all of it, or what lies under one attribute of a larger one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from spgsurgeon.models.recognition.fingerprints import (
    Places,
    Shape,
    Shapes,
    key_hash,
    order_hash,
    shape_hash,
    without_counters,
)

_DEEPEST = 8  # attributes of attributes that are looked into
_SMALLEST = 12  # tensors; the least that an architecture has is 16


@dataclass(frozen=True, eq=False)
class Part:
    """The tensors of `whole` that lie under `prefix`, as `shapes`: by their keys without it."""

    prefix: str
    shapes: Shapes
    whole: Shapes

    @property
    def outside(self) -> tuple[str, ...]:
        """The full keys of all other tensors."""
        return tuple(key for key in self.whole if not key.startswith(self.prefix))

    @cached_property
    def weights(self) -> dict[str, Shape]:
        """All but BatchNorm's counters."""
        return without_counters(self.shapes)

    @cached_property
    def key_hash(self) -> str:
        """See `fingerprints.key_hash`."""
        return key_hash(self.weights)

    @cached_property
    def order_hash(self) -> str:
        """See `fingerprints.order_hash`."""
        return order_hash(self.weights)

    def shape_hash(self, class_places: Places, channel_places: Places) -> str:
        """See `fingerprints.shape_hash`; computed once for the same places."""
        places = (class_places, channel_places)
        if places not in self._shape_hashes:
            self._shape_hashes[places] = shape_hash(self.weights, *places)
        return self._shape_hashes[places]

    @cached_property
    def _shape_hashes(self) -> dict[tuple[Places, Places], str]:
        return {}


def main_parts(shapes: Shapes) -> Iterator[Part]:
    """Yield all of the file, then what lies under the attribute that holds most of it, and so on inwards."""
    part = Part("", shapes, shapes)
    for _ in range(_DEEPEST):
        yield part
        held = Counter(key.partition(".")[0] for key in part.shapes if "." in key)
        attribute, count = held.most_common(1)[0] if held else ("", 0)
        if count < _SMALLEST or 2 * count <= len(part.shapes):
            return
        prefix = f"{attribute}."
        inside = {key[len(prefix) :]: shape for key, shape in part.shapes.items() if key.startswith(prefix)}
        part = Part(part.prefix + prefix, inside, shapes)


def inner_parts(shapes: Shapes) -> Iterator[Part]:
    """Yield what lies under each attribute, at any depth, that holds enough tensors to be a model."""
    prefixes = {key: _prefixes(key) for key in shapes}
    held = Counter(prefix for found in prefixes.values() for prefix in found)
    inner: dict[str, dict[str, Shape]] = {prefix: {} for prefix, count in held.items() if count >= _SMALLEST}
    for key, shape in shapes.items():
        for prefix in prefixes[key]:
            if prefix in inner:
                inner[prefix][key[len(prefix) :]] = shape
    for prefix, inside in inner.items():
        yield Part(prefix, inside, shapes)


def _prefixes(key: str) -> list[str]:
    """Return `a.` and `a.b.` for `a.b.c`."""
    attributes = key.split(".", _DEEPEST)[:-1]
    return [prefix + "." for prefix in accumulate(attributes, "{}.{}".format)]
