"""Batches made on the device, where decoded images of one size stay: the same that loader workers would make.

Shapes: N images of a data set, H x W pixels each.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from spgsurgeon.data.cache.decoded_images import DecodedPictures
from spgsurgeon.data.loading.feed import unusable_error
from spgsurgeon.data.loading.samples import Batch, Key, Loaded, Samples, Unusable
from spgsurgeon.data.loading.seen import Noticed, Seen
from spgsurgeon.data.loading.transfer import sent
from spgsurgeon.data.sources.source import Source
from spgsurgeon.data.transforms.augmentation import StagedTransform
from spgsurgeon.data.transforms.batched import BatchedAugmentation, check_batched
from spgsurgeon.errors import UsageError
from spgsurgeon.models import IMAGES


class DevicePictures:
    """The decoded images of a data set on a device; `rows` says where each is, -1 where it was not decoded.

    On the CPU they stay in the file that they were decoded to, which other processes may share. Raises UsageError if
    they have several sizes.
    """

    def __init__(self, source: Source[Any], decoded: DecodedPictures, device: torch.device) -> None:
        start, height, width, label, traits = decoded.index.T
        self.traits = traits.astype(np.uint8)
        there = (start >= 0) & (label >= 0) & (label < len(source.classes))
        sizes = sorted({(int(h), int(w)) for h, w in zip(height[start >= 0], width[start >= 0], strict=True)})
        if len(sizes) > 1:
            raise several_sizes(source, sizes)
        self.size = sizes[0] if sizes else (1, 1)
        bytes_each = 3 * self.size[0] * self.size[1]
        self.rows: list[int] = [int(s) // bytes_each if t else -1 for s, t in zip(start, there, strict=True)]
        self.labels: list[int] = label.tolist()
        self.pixels = torch.from_numpy(decoded.pixels).view(-1, *self.size, 3).to(device)


def several_sizes(source: Source[Any], sizes: Iterable[tuple[int, int]]) -> UsageError:
    """Return the error for images that can't lie on a device together."""
    some = ", ".join(f"{width} x {height}" for height, width in sorted(sizes)[:3])
    return UsageError(
        f"data.cache=device is for images of one size, and those of {source.name} have several: {some}",
        hint="data.augment.crop=pad or resize brings them to one, or data.cache=memory",
    )


class DeviceFeed:
    """Runs plans as `Feed` does, without workers. `decode` is called once, when the first batch is asked for.

    Images that could not be decoded are read as ever, by `samples`. Raises UsageError for a transform that can't be
    done in batches.
    """

    def __init__(
        self,
        samples: Samples,
        transform: StagedTransform,
        decode: Callable[[], DecodedPictures],
        device: torch.device,
    ) -> None:
        check_batched(transform)
        self.unusable: dict[str, str] = {}
        self.seen = Seen(len(samples.source))
        self.seconds = 0.0
        self._samples, self._transform, self._decode, self._device = samples, transform, decode, device
        self._kept: tuple[DevicePictures, BatchedAugmentation] | None = None
        self._running: Generator[list[Batch], None, None] | None = None

    def run(self, keys: Iterable[list[Key]]) -> Iterator[list[Batch]]:
        """See `Feed`."""
        self.close()
        self._running = self._parts(keys)
        return self._running

    def open(self) -> None:
        """See `Feed`."""
        self._opened()

    def close(self) -> None:
        """End what runs; the images stay."""
        if self._running is not None:
            self._running.close()
            self._running = None

    def _parts(self, plan: Iterable[list[Key]]) -> Generator[list[Batch], None, None]:
        pictures, augmentation = self._opened()
        for keys in plan:
            started = time.thread_time()
            items = list(self._found(keys, pictures))
            batches = [self._batch(items, pictures, augmentation)] if items else []
            self.seconds += time.thread_time() - started
            yield batches

    def _opened(self) -> tuple[DevicePictures, BatchedAugmentation]:
        if self._kept is None:
            pictures = DevicePictures(self._samples.source, self._decode(), self._device)
            self.seen.traits |= pictures.traits
            self._kept = pictures, BatchedAugmentation(self._transform, pictures.size, self._device)
        return self._kept

    def _found(self, keys: Iterable[Key], pictures: DevicePictures) -> Iterator[Key | Loaded]:
        """Return the key of each image that is here, and what else the others came to; some may be left out."""
        describe = self._samples.source.describe
        for key in keys:
            if pictures.rows[key[1]] >= 0:
                yield key
                continue
            item = self._samples[key]
            passed_over = [item] if isinstance(item, Unusable) else item.replaces
            if isinstance(item, Unusable) and not self._samples.skips:
                raise unusable_error(self._samples.source, item)
            self.unusable |= {describe(one.index): one.reason for one in passed_over}
            if isinstance(item, Loaded):
                self.seen.add(Noticed([(item.index, item.traits)]))
                yield item

    def _batch(self, items: list[Key | Loaded], pictures: DevicePictures, augmentation: BatchedAugmentation) -> Batch:
        here = [item for item in items if not isinstance(item, Loaded)]
        rows = self._sent([pictures.rows[index] for _, index in here])
        images = augmentation(pictures.pixels, rows, [self._samples.seed_of(key) for key in here])
        if len(here) < len(items):
            images = self._with_others(images, items)
        targets = [item.target if isinstance(item, Loaded) else pictures.labels[item[1]] for item in items]
        samples = [item.index if isinstance(item, Loaded) else item[1] for item in items]
        return Batch({IMAGES: images}, self._sent(targets), self._sent(samples))

    def _with_others(self, images: torch.Tensor, items: list[Key | Loaded]) -> torch.Tensor:
        """Return a batch of all items: the augmented `images` of those that are here, and the others between them."""
        others = {place: item.inputs[IMAGES] for place, item in enumerate(items) if isinstance(item, Loaded)}
        together = torch.empty((len(items), *next(iter(others.values())).shape), device=self._device)
        together[self._sent([place for place in range(len(items)) if place not in others])] = images
        for place, image in others.items():
            together[place] = sent(image, self._device)
        return together

    def _sent(self, numbers: list[Any]) -> torch.Tensor:
        return sent(torch.tensor(numbers, dtype=torch.int64), self._device)
