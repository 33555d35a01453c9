"""Labels that are made wrong by design, to study how a training bears wrong ones.

Shapes: N samples, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.data.sources.source import ImageSource, Source, listing, short_hash
from spgsurgeon.data.subsets import LabelledSubset
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.runtime import derive_seed


@dataclass(frozen=True, eq=False)
class Mislabelled:
    """The samples of `whole` with other labels: those `given`, int64 [N]."""

    whole: ImageSource
    given: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The data set's."""
        return self.whole.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The data set's."""
        return self.whole.classes

    @property
    def notes(self) -> tuple[str, ...]:
        """The data set's."""
        return self.whole.notes

    def __len__(self) -> int:
        return len(self.given)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """See `Source`."""
        return self.whole.read(index)[0], int(self.given[index])

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.given

    def describe(self, index: int) -> str:
        """See `Source`."""
        return self.whole.describe(index)

    def file_paths(self) -> Iterable[str | Path]:
        """See `Source`."""
        return self.whole.file_paths()

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [*self.whole.marks(), short_hash(self.given.astype("<i8").tobytes())]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return [*self.whole.fingerprint(), short_hash(self.given.astype("<i8").tobytes())]


def with_label_noise(
    source: ImageSource,
    kind: Literal["symmetric", "asymmetric"],
    rate: float,
    seed: int,
    pairs: Mapping[str, str] | None = None,
) -> Mislabelled:
    """Return labelled samples of which each has a wrong label with the probability `rate`.

    Symmetric, it is any other class, each as likely: label c stays with probability 1 - rate and becomes each of the
    others with rate / (C - 1). Asymmetric, it is the next class, c + 1 and 0 after the last, or the one that `pairs`
    say by name; classes that these do not name keep their labels then. What becomes of a sample is a function of the
    seed and its number alone, and who is wrong at a rate is so at any higher one. Raises UsageError for pairs of
    classes that there are not.
    """
    labels, classes = source.labels(), len(source.classes)
    # Of numpy's generators the raw numbers are the same in every version, and sample i has two of its own.
    raw = np.random.Philox(key=derive_seed(seed, "label-noise")).random_raw(2 * len(labels)).reshape(-1, 2)
    wrong = (raw[:, 0] >> np.uint64(11)) * 2.0**-53 < rate
    wrong &= (labels >= 0) & (labels < classes)  # any other can't be used, which is said where it is read
    if kind == "symmetric":
        others = (labels + 1 + (raw[:, 1] % np.uint64(max(classes - 1, 1))).astype(np.int64)) % classes
    else:
        others = _next_of(source, pairs)[np.where(wrong, labels, 0)]
    return Mislabelled(source, np.where(wrong, others, labels))


def _next_of(source: Source[Any], pairs: Mapping[str, str] | None) -> NDArray[np.int64]:
    """Return which class each is taken for, int64 [C]."""
    classes = list(source.classes)
    if pairs is None:
        return np.roll(np.arange(len(classes)), -1)
    unknown = [name for pair in pairs.items() for name in pair if name not in classes]
    if unknown:
        raise UsageError(
            f"data.label_noise.pairs names {unknown[0]!r}, which is not a class of {source.name}",
            hint=did_you_mean(unknown[0], classes) or f"its classes are {listing(classes)}",
            code="unknown-class",
        )
    return np.array([classes.index(pairs.get(name, name)) for name in classes], dtype=np.int64)


def wrong_labels(source: Source[Any]) -> int:
    """Return how many samples of mislabelled data, or of a part of it, have another label than before."""
    noisy, chosen = (source.whole, source.indices) if isinstance(source, LabelledSubset) else (source, slice(None))
    assert isinstance(noisy, Mislabelled)
    return int((noisy.given != noisy.whole.labels())[chosen].sum())
