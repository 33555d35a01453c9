"""Samples that hold the same to the last bit: in two splits, under two classes, or more than once in a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from spgsurgeon.data.checking.examining import Examined

Place = tuple[str, int, int | None]
"""A sample: its split, its number there and its label, if it has one class."""


@dataclass(frozen=True)
class Duplicates:
    """Where samples are, each entry those that hold the same. `within` counts the spare ones of each split."""

    across_splits: list[list[str]]
    other_classes: list[list[str]]
    within: dict[str, int]

    def document(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "across_splits": self.across_splits,
            "other_classes": self.other_classes,
            "within_split": self.within,
        }


def duplicates(splits: Mapping[str, Examined]) -> Duplicates:
    """Return what is there twice among the samples that were looked at."""
    groups = list(_groups(splits))
    named = {id(group): [splits[split].source.describe(index) for split, index, _ in group] for group in groups}
    return Duplicates(
        across_splits=[named[id(group)] for group in groups if len({split for split, *_ in group}) > 1],
        other_classes=[named[id(group)] for group in groups if len(_classes(group, splits)) > 1],
        within={
            name: spare
            for name, found in splits.items()
            if (spare := sum(len(places) - 1 for places in found.contents.values()))
        },
    )


def _groups(splits: Mapping[str, Examined]) -> Iterator[list[Place]]:
    """Return the places of samples that are there more than once."""
    everywhere: dict[bytes, list[Place]] = {}
    for name, found in splits.items():
        for content, places in found.contents.items():
            everywhere.setdefault(content, []).extend((name, *place) for place in places)
    return (places for places in everywhere.values() if len(places) > 1)


def _classes(group: list[Place], splits: Mapping[str, Examined]) -> set[str]:
    return {splits[split].source.classes[label] for split, _, label in group if label is not None}
