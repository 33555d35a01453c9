"""Where images stay decoded, and the feeds that read them from there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spgsurgeon.data.cache.decoded_images import DecodedPictures, decode
from spgsurgeon.data.loading.device_feed import DeviceFeed
from spgsurgeon.data.loading.feed import Feed
from spgsurgeon.data.loading.samples import AnyTransform, Batch, Collate, Key, Samples, batches_by_size
from spgsurgeon.data.sources.source import Source
from spgsurgeon.data.transforms.augmentation import StagedTransform


@dataclass(frozen=True)
class Cache:
    """Images stay decoded in memory, or on the `device` if one is given, which then makes the batches too.

    They are shared with who names the same `folder`; `say` is told when decoding begins.
    """

    device: torch.device | None = None
    folder: Path | None = None
    say: Callable[[str], None] = lambda text: None


def make_feed(
    source: Source[Any],
    transform: AnyTransform,
    seed: int,
    *,
    workers: int,
    pin_memory: bool,
    cache: Cache | None,
    replaces: bool = False,
    skips: bool = False,
    counts: bool = False,
    collate: Collate = batches_by_size,
) -> Feed[Key, Batch] | DeviceFeed:
    """Return what runs plans over the samples; see `Samples` and `Cache`."""
    if cache is None:
        samples = Samples(source, transform, seed, replaces=replaces, skips=skips, counts=counts, collate=collate)
        return Feed(samples, workers, pin_memory)
    assert isinstance(transform, StagedTransform), "images with masks are not cached"
    decode_all = partial(_decode, source, transform, workers, cache)
    if cache.device is None:
        samples = Samples(source, transform, seed, replaces=replaces, skips=skips, decode=decode_all)
        return Feed(samples, workers, pin_memory)
    samples = Samples(source, transform, seed, replaces=replaces, skips=skips)
    return DeviceFeed(samples, transform, decode_all, cache.device)


def _decode(source: Any, transform: StagedTransform, workers: int, cache: Cache) -> DecodedPictures:
    return decode(source, transform, workers=workers, folder=cache.folder, say=cache.say)
