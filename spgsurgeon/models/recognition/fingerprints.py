"""Short digests of key lists and shapes, and samples of them: the same in every process, on every machine.

BatchNorm's counters (`num_batches_tracked`) are in none of them: they stand wherever `running_mean` does, and weights
saved before PyTorch 0.4.1 lack them.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
Places = tuple[tuple[str, int, int], ...]
"""(key, dimension, factor): there the shape is `factor` times the number of classes, or of input channels."""

COUNTER = "num_batches_tracked"
_OF_KEYS, _OF_PAIRS = 16, 24  # sample sizes: these tell the nearest dozen of all architectures well enough


def without_counters(shapes: Shapes) -> dict[str, Shape]:
    """Return the shapes of all but BatchNorm's counters."""
    return {key: shape for key, shape in shapes.items() if not key.endswith(COUNTER)}


def key_hash(keys: Iterable[str]) -> str:
    """Return a digest of the keys, in whatever order they come."""
    return _digest(sorted(keys))


def order_hash(keys: Iterable[str]) -> str:
    """Return a digest of the keys in their order."""
    return _digest(list(keys))


def shape_hash(shapes: Shapes, class_places: Places, channel_places: Places) -> str:
    """Return a digest of keys and shapes that is the same for any number of classes and of input channels."""
    return _digest(sorted(masked(shapes, class_places, channel_places).items()))


def masked(shapes: Shapes, class_places: Places, channel_places: Places) -> dict[str, Shape]:
    """Return the shapes with -1 where they follow the number of classes, and -2 where that of input channels."""
    marked = dict(shapes)
    for mark, places in ((-1, class_places), (-2, channel_places)):
        for key, dimension, _ in places:
            shape = marked.get(key, ())
            if dimension < len(shape):
                marked[key] = (*shape[:dimension], mark, *shape[dimension + 1 :])
    return marked


def key_codes(shapes: Shapes) -> list[int]:
    """Return a number for each key."""
    return [zlib.crc32(key.encode("utf-8", "surrogatepass")) for key in shapes]


def pair_codes(shapes: Shapes) -> list[int]:
    """Return a number for each key with its shape."""
    return [zlib.crc32(f"{key}{list(shape)}".encode("utf-8", "surrogatepass")) for key, shape in shapes.items()]


def sample(codes: Iterable[int], size: int) -> list[int]:
    """Return the `size` smallest codes: how many of them others have estimates how much of the whole they have."""
    return sorted(set(codes))[:size]


def key_sample(shapes: Shapes) -> list[int]:
    """Return the sample of the keys that the catalogue keeps."""
    return sample(key_codes(shapes), _OF_KEYS)


def pair_sample(shapes: Shapes) -> list[int]:
    """Return the sample of the keys with shapes that the catalogue keeps."""
    return sample(pair_codes(shapes), _OF_PAIRS)


def _digest(value: object) -> str:
    return hashlib.blake2b(json.dumps(value, separators=(",", ":")).encode(), digest_size=8).hexdigest()
