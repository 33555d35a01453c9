"""How many units of a data set have each class, where a sample has many of them: pixels of masks, words.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.source import Source

_AT_ONCE = 256  # samples


def count_units(source: Source[Any], samples: Sequence[int], threads: int = 1) -> NDArray[np.int64]:
    """Return how many units of these samples have each class, int64 [C]; those that stand for no class do not count.

    Each sample is read once, as a whole. What can't be read is left out: training finds it again, and says so.
    """
    counts = np.zeros(len(source.classes), dtype=np.int64)
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for first in range(0, len(samples), _AT_ONCE):  # what waits in a pool's queue has no bound
            for found in pool.map(lambda index: _units_of(source, index), samples[first : first + _AT_ONCE]):
                counts += found
    return counts


def _units_of(source: Source[Any], index: int) -> NDArray[np.int64]:
    classes = len(source.classes)
    try:
        labels = np.asarray(source.read(index)[1]).ravel()
    except Exception:  # decoders raise much more than OSError on damaged files
        return np.zeros(classes, dtype=np.int64)
    return np.bincount(labels[(labels >= 0) & (labels < classes)], minlength=classes)
