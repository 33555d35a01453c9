"""A recipe as written: plain values that remember where they came from, and the overrides laid over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import yaml
from yaml.constructor import SafeConstructor

from spgsurgeon.recipe.schema import accepts
from spgsurgeon.recipe.syntax import NULL, compose, syntax_fault

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class Place:
    """Where something was written: `recipe.yaml:12` or `override training.epochs=3`; `order` sorts by it."""

    name: str
    order: float


@dataclass(frozen=True)
class Document:
    """Plain values, the place of each key path among them, and the faults met so far, each with its place."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, Place] = field(default_factory=dict)
    faults: list[tuple[Place, str]] = field(default_factory=list)

    def place(self, path: KeyPath) -> Place:
        """Return the place of `path`, or of the nearest section around it that was written."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.places:
                return self.places[path[:length]]
        return Place(self.name, 0)

    def add_fault(self, path: KeyPath, what: str) -> None:
        """Note that something is wrong with the value at `path`."""
        self.faults.append((self.place(path), f"{dotted(path)}: {what}" if path else what))


def dotted(path: KeyPath) -> str:
    """Return `training.optimizer.lr` or `objective.weights[1]`."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).removeprefix(".")


def parse_document(text: str, name: str) -> Document:
    """Return the values of one YAML mapping; whatever is wrong is noted in `faults`, never raised."""
    document = Document(name)
    try:
        node = compose(text)
    except yaml.YAMLError as error:
        line, what = syntax_fault(error)
        document.faults.append((Place(f"{name}:{line}", line), what))
        return document
    if isinstance(node, yaml.MappingNode):
        document.values.update(_mapping(node, (), document, lambda at: Place(f"{name}:{at.line + 1}", at.line + 1)))
    elif node is not None:
        document.add_fault((), "a recipe is a mapping of sections, such as 'training: {epochs: 3}'")
    return document


def apply_override(document: Document, text: str) -> None:
    """Lay one `section.key=value` over the document; the value is YAML and replaces what was there."""
    key, equals, written = text.partition("=")
    path = tuple(key.strip().split("."))
    place = Place(f"override {text}", inf)
    if not equals or not all(path):
        document.faults.append((place, "an override has the form section.key=value"))
        return
    try:
        node = compose(written)
    except yaml.YAMLError as error:
        document.faults.append((place, syntax_fault(error)[1]))
        return
    section = _section_for(document, path, place)
    if section is not None:
        for replaced in [below for below in document.places if below[: len(path)] == path]:
            del document.places[replaced]
        document.places[path] = place
        section[path[-1]] = None if node is None else _plain(node, path, document, lambda _: place)


def _section_for(document: Document, path: tuple[str, ...], place: Place) -> dict[str, Any] | None:
    """Return the mapping that holds the last key of `path`, made where it is missing."""
    section = document.values
    for depth in range(1, len(path)):
        if section.get(path[depth - 1]) is None:
            section[path[depth - 1]] = {}
            document.places[path[:depth]] = place
        section = section[path[depth - 1]]
        if not isinstance(section, dict):
            document.faults.append((place, f"{dotted(path[:depth])} has a value, and no keys below it"))
            return None
    return section


def _plain(node: yaml.Node, path: KeyPath, document: Document, place_at: Callable[[yaml.Mark], Place]) -> Any:
    if isinstance(node, yaml.MappingNode):
        return _mapping(node, path, document, place_at)
    if isinstance(node, yaml.SequenceNode):
        items = {(*path, index): item for index, item in enumerate(node.value)}
        document.places.update({inner: place_at(item.start_mark) for inner, item in items.items()})
        return [_plain(item, inner, document, place_at) for inner, item in items.items()]
    if accepts(path, str) and node.tag != NULL:
        return node.value  # as it was written: `path: 007` is text because paths are
    return SafeConstructor().construct_object(node)


def _mapping(
    node: yaml.MappingNode, path: KeyPath, document: Document, place_at: Callable[[yaml.Mark], Place]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        place = place_at(key_node.start_mark)
        if not isinstance(key_node, yaml.ScalarNode):
            document.faults.append((place, "a key must be a word"))
            continue
        inner = (*path, key_node.value)
        if key_node.value in values:
            first = document.places[inner].name
            document.faults.append((place, f"{dotted(inner)}: duplicate key, first given at {first}"))
            continue
        document.places[inner] = place
        values[key_node.value] = _plain(value_node, inner, document, place_at)
    return values
