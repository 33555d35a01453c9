"""What a pickle holds, as plain data: Python's own containers and scalars, and the inert nodes below for the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True, eq=False)
class Global:
    """An importable thing, named and never imported."""

    name: str  # "module.name"; Python 2's __builtin__ as builtins


@dataclass(slots=True, eq=False)
class Call:
    """A call that a pickle asks for, never made: `name(*args)`, then `state` set on what it would return."""

    name: str | None  # None if what is called is not a plain name
    args: Any
    state: Any = None


@dataclass(slots=True, eq=False)
class Persistent:
    """A reference to something that lies outside of the pickle: for torch, a storage."""

    id: Any


@dataclass(slots=True, eq=False)
class Inert:
    """A value of no use to anyone who reads weights, such as an integer of a million digits."""

    kind: str


class Attributes(dict[Any, Any]):
    """The attributes of an object, such as an argparse.Namespace, by their names."""


def describe(value: object) -> str:
    """Return a word or two for a message: what kind of thing the value is."""
    match value:
        case Call(name=str(name)):
            return f"{name:.80}"
        case Global(name=name):
            return f"{name:.80}"
        case Inert(kind=kind):
            return kind
        case Attributes():
            return "Namespace"
    return type(value).__name__


def describe_key(key: object) -> str:
    """Return a dictionary's key as it can be shown: short, and without anything that a terminal would obey."""
    return f"{key!r:.80}" if isinstance(key, (str, int, float, bool)) else f"<{describe(key)}>"
