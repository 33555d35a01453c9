"""Fixed random orders of labelled samples. Hashes do the shuffling: no library's generator can change it."""

from __future__ import annotations

from collections.abc import Iterable

from spgsurgeon.runtime import derive_seed


def stratified_order(labels: Iterable[int], purpose: str) -> list[int]:
    """Return a fixed order of the samples in which every run of consecutive ones has the classes in proportion.

    Each class is shuffled, another way for another `purpose`, then dealt out evenly.
    """
    place: list[tuple[float, int, int]] = []
    for label, members in shuffled_classes(labels, purpose).items():
        place += [((rank + 0.5) / len(members), label, index) for rank, index in enumerate(members)]
    return [index for _, _, index in sorted(place)]


def shuffled_classes(labels: Iterable[int], purpose: str) -> dict[int, list[int]]:
    """Return the samples of each class by label, shuffled by hashes of `purpose` and their index."""
    classes: dict[int, list[int]] = {}
    for index, label in enumerate(labels):
        classes.setdefault(int(label), []).append(index)
    return {
        label: sorted(members, key=lambda index: derive_seed(purpose, index))
        for label, members in sorted(classes.items())
    }
