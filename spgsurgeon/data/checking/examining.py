"""One split of a data set, read sample by sample: what was found, and what could not be read.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.checking.facts import Facts, facts_of
from spgsurgeon.data.loading.seen import said_of_traits
from spgsurgeon.data.sources.source import Source

_AT_ONCE = 256  # samples


@dataclass
class Examined:
    """What was found of the samples that were `looked_at`, of those of a split."""

    source: Source[Any]
    looked_at: Sequence[int]
    unreadable: dict[str, str] = field(default_factory=dict)
    """Why, by where they are."""
    units: Counter[int] = field(default_factory=Counter)
    """How many of them, or of their units, have a class, by label."""
    kinds: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: dict[str, list[float]] = field(default_factory=dict)
    traits: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, dtype=np.uint8))
    contents: dict[bytes, list[tuple[int, int | None]]] = field(default_factory=dict)
    """Samples that hold the same, with their labels if these are one class each."""

    @property
    def whole(self) -> bool:
        """Whether all samples were looked at."""
        return len(self.looked_at) == len(self.source)

    @property
    def said(self) -> list[str]:
        """What is worth saying of how the samples are read."""
        return said_of_traits(self.traits, self.source)

    def document(self) -> dict[str, Any]:
        """Return plain data; sizes are the least, the median and the most."""
        return {
            "name": self.source.name,
            "samples": len(self.source),
            "looked_at": len(self.looked_at),
            "classes": [[name, self.units[label]] for label, name in enumerate(self.source.classes)],
            "unreadable": self.unreadable,
            "kinds": {name: dict(found.most_common()) for name, found in self.kinds.items()},
            "sizes": {name: [min(found), median(found), max(found)] for name, found in self.sizes.items()},
        }


class _Looked(NamedTuple):
    sample: int
    target: Any = None
    facts: Facts | None = None
    fault: str | None = None


def examine(
    source: Source[Any],
    *,
    most: int | None = None,
    threads: int = 1,
    told: Callable[[int], None] = lambda done: None,
) -> Examined:
    """Read the samples of a split, at most so many at even distances, and return what was found.

    `told` hears now and then how many are done.
    """
    looked_at = range(len(source)) if most is None or most >= len(source) else _spread(len(source), most)
    found = Examined(source, looked_at, traits=np.zeros(len(source), dtype=np.uint8))
    for done, looked in enumerate(_looks(source, looked_at, threads), start=1):
        _add(found, looked)
        if done % _AT_ONCE == 0 or done == len(looked_at):
            told(done)
    return found


def _spread(samples: int, most: int) -> list[int]:
    return [number * samples // most for number in range(most)]


def _looks(source: Source[Any], looked_at: Sequence[int], threads: int) -> Iterator[_Looked]:
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for first in range(0, len(looked_at), _AT_ONCE):  # what waits in a pool's queue has no bound
            yield from pool.map(lambda index: _look(source, index), looked_at[first : first + _AT_ONCE])


def _look(source: Source[Any], index: int) -> _Looked:
    try:
        content, target = source.read(index)
        facts = facts_of(content)
    except Exception as error:  # decoders raise much more than OSError on damaged files
        return _Looked(index, fault=str(error) or type(error).__name__)
    if isinstance(target, int) and not 0 <= target < len(source.classes):
        return _Looked(index, fault=f"its label {target} is not one of the {len(source.classes)} classes")
    return _Looked(index, target, facts)


def _add(found: Examined, looked: _Looked) -> None:
    facts, target = looked.facts, looked.target
    if facts is None:
        found.unreadable[found.source.describe(looked.sample)] = looked.fault or ""
        return
    label = target if isinstance(target, int) else None
    found.units.update([label] if label is not None else _units(target))
    for name, kind in facts.kinds.items():
        found.kinds.setdefault(name, Counter())[kind] += 1
    for name, size in facts.sizes.items():
        found.sizes.setdefault(name, []).append(size)
    found.traits[looked.sample] |= facts.traits
    found.contents.setdefault(facts.content, []).append((looked.sample, label))


def _units(target: Any) -> dict[int, int]:
    """Return how many units have each label, of a target with one for each; those below 0 stand for nothing."""
    if not hasattr(target, "shape"):
        return {}
    labels, counts = np.unique(np.asarray(target), return_counts=True)
    return {int(label): int(count) for label, count in zip(labels, counts, strict=True) if label >= 0}
