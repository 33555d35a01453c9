"""How a part of a file compares with an architecture: exactly, by hashes alone, or tensor by tensor."""

from __future__ import annotations

from dataclasses import dataclass

from spgsurgeon.models.recognition.catalogue import Entry, counters_of
from spgsurgeon.models.recognition.fingerprints import COUNTER, Shape, Shapes, masked
from spgsurgeon.models.recognition.parts import Part
from spgsurgeon.models.recognition.varying_shapes import number_at


@dataclass(frozen=True)
class Match:
    """An architecture that weights are of, or are near to.

    `classes` and `channels` are those of the file's shapes: 0 classes where it has no classifier, None if its shapes
    contradict each other. `prefix` is what to take off the keys of the model. `missing` are keys of the model (without
    the prefix), `unexpected` full keys of the file outside the model, and `mismatched` says "key is [..], expected
    [..]". `fitting` counts the file's tensors that are in order.
    """

    entry: Entry
    classes: int | None
    channels: int | None
    prefix: str = ""
    missing: tuple[str, ...] = ()
    unexpected: tuple[str, ...] = ()
    mismatched: tuple[str, ...] = ()
    fitting: int = 0

    @property
    def clean(self) -> bool:
        """Whether the file holds the model's tensors and no others."""
        return not (self.missing or self.unexpected or self.mismatched)

    @property
    def headless(self) -> bool:
        """Whether what the model has too much is its classifier, and nothing else."""
        return bool(self.missing) and set(self.missing) == set(self.entry.head_keys) and not self.mismatched

    @property
    def evidence(self) -> str:
        """One line for people on how well the file and the architecture fit."""
        where = f" under {self.prefix!r}" if self.prefix else ""
        if self.headless:
            return self._with_numbers(f"all {self.fitting} keys and shapes{where} but the classifier's")
        if self.mismatched or any(not key.endswith(COUNTER) for key in self.missing):
            of = self.fitting + len(self.missing) + len(self.mismatched)
            return f"{self.fitting} of {of} tensors{where} {self._faults()}"
        counters = " but BatchNorm's counters" if self.missing else ""
        return self._with_numbers(f"all {self.fitting} keys and shapes{where}{counters}")

    def _with_numbers(self, text: str) -> str:
        classes = f", {self.classes} class{'es' if self.classes > 1 else ''}" if self.classes else ""
        channels = f", {self.channels} input channel{'s' if self.channels > 1 else ''}" if self.channels else ""
        more = f", {len(self.unexpected)} tensors beside them" if self.unexpected else ""
        return text + classes + channels + more

    def _faults(self) -> str:
        faults = {
            "of another shape": self.mismatched,
            "missing": self.missing,
            "unexpected": self.unexpected,
        }
        return "; ".join(["fit", *(f"{len(keys)} {fault}" for fault, keys in faults.items() if keys)])


def exact_match(entry: Entry, part: Part) -> Match | None:
    """Return the match where keys and shapes are the architecture's, with any number of classes and input channels.

    The classifier may be absent as a whole, and so may BatchNorm's counters, which old files lack.
    """
    if _is_full(entry, part):
        absent: tuple[str, ...] = ()
    elif _is_headless(entry, part):
        absent = entry.head_keys if entry.classes else ()
    else:
        return None
    classes = number_at(part.shapes, entry.class_places, 0)
    channels = number_at(part.shapes, entry.channel_places, entry.channels)
    if classes is None or channels is None:
        return None
    expected = dict.fromkeys(counters_of(part.weights), ())
    missing, unexpected, mismatched, fitting = _compare(expected, _counters(part), part.prefix)
    return Match(
        entry,
        classes,
        channels,
        part.prefix,
        missing=(*absent, *missing),
        unexpected=(*part.outside, *unexpected),
        mismatched=mismatched,
        fitting=len(part.weights) + fitting,
    )


def compare(entry: Entry, full_layout: Shapes, part: Part) -> Match:
    """Return the match with all differences between the part and the architecture (see `catalogue.full_layout`)."""
    classes, channels = _numbers_of_similar(entry, full_layout, part.shapes)
    expected = dict(full_layout)
    if not entry.classes and not any(key in part.shapes for key in entry.head_keys):
        expected = {key: shape for key, shape in expected.items() if key not in entry.head_keys}
    for places, number in ((entry.class_places, classes), (entry.channel_places, channels)):
        for key, dimension, factor in places:
            if number and key in expected:
                shape = expected[key]
                expected[key] = (*shape[:dimension], factor * number, *shape[dimension + 1 :])
    missing, unexpected, mismatched, fitting = _compare(expected, part.shapes, part.prefix)
    unexpected = (*part.outside, *unexpected)
    return Match(entry, classes, channels, part.prefix, missing, unexpected, mismatched, fitting)


def _numbers_of_similar(entry: Entry, full_layout: Shapes, shapes: Shapes) -> tuple[int | None, int | None]:
    """Return the numbers of classes and of input channels by the tensors whose shapes differ in nothing else."""
    places = entry.class_places, entry.channel_places
    known, found = masked(full_layout, *places), masked(shapes, *places)
    similar = {key: shapes[key] for key, shape in known.items() if found.get(key) == shape}
    has_head = any(key in shapes for key, *_ in entry.class_places)
    has_stem = any(key in shapes for key, *_ in entry.channel_places)
    classes = number_at(similar, entry.class_places, None if has_head else 0)
    return classes, number_at(similar, entry.channel_places, None if has_stem else entry.channels)


def _is_full(entry: Entry, part: Part) -> bool:
    places = entry.class_places, entry.channel_places
    return part.key_hash == entry.key_hash and part.shape_hash(*places) == entry.shape_hash


def _is_headless(entry: Entry, part: Part) -> bool:
    same_keys = part.key_hash == entry.headless_key_hash
    return same_keys and part.shape_hash((), entry.channel_places) == entry.headless_shape_hash


def _compare(
    expected: Shapes, found: Shapes, prefix: str
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], int]:
    """Return the missing keys, the unexpected ones, what is of another shape, and how many tensors fit."""
    missing = tuple(key for key in expected if key not in found)
    unexpected = tuple(prefix + key for key in found if key not in expected)
    mismatched = tuple(
        f"{key} is {list(found[key])}, expected {list(shape)}"
        for key, shape in expected.items()
        if key in found and found[key] != shape
    )
    return missing, unexpected, mismatched, len(expected) - len(missing) - len(mismatched)


def _counters(part: Part) -> dict[str, Shape]:
    return {key: shape for key, shape in part.shapes.items() if key not in part.weights}
