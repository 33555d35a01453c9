"""What a shell completes, at each press of the key: names that are known without importing a library.

With nothing typed yet, and for what matches nothing, the shell offers files, which most of these arguments may be too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable


def model_names(incomplete: str) -> list[str]:
    """Return the models of timm and torchvision whose name begins so."""
    from spgsurgeon.models import catalogue

    if not incomplete:
        return []
    entries = catalogue()
    named = map("/".join, zip(entries.column("library"), entries.column("architecture"), strict=True))
    return _beginning(named, incomplete)


def recipe_names(incomplete: str) -> list[str]:
    """Return the shipped recipes whose name begins so."""
    from spgsurgeon.recipe import shipped_recipes

    return _beginning(shipped_recipes(), incomplete)


def data_sources(incomplete: str) -> list[str]:
    """Return the forms of data whose name begins so."""
    from spgsurgeon.data import SOURCES

    return _beginning(SOURCES, incomplete) if incomplete else []


def topics(incomplete: str) -> list[str]:
    """Return the guides whose name begins so."""
    from spgsurgeon.docs import guides

    return _beginning((guide.topic for guide in guides()), incomplete)


def one_of(*values: str) -> Callable[[str], list[str]]:
    """Return what completes one of these values."""

    def complete(incomplete: str) -> list[str]:
        return _beginning(values, incomplete)

    return complete


def listed_after_commas(*values: str) -> Callable[[str], list[str]]:
    """Return what completes the last of several of these values, with commas between, by those not given yet."""

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        left = [value for value in values if value not in before.split(",")]
        return [f"{before}{comma}{value}" for value in _beginning(left, last)]

    return complete


def _beginning(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(incomplete)]
