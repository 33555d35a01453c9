"""Balanced orders: each class as often, none of its samples much more often than another, by the seed and the epoch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from spgsurgeon.data.loading.loader import TrainingBatches
from spgsurgeon.data.loading.order import balanced_order, repeats
from spgsurgeon.models import IMAGES

LABELS = np.array([0] * 40 + [1] * 5 + [3] * 12)  # of class 2 there is nothing


def order(seed: int = 0) -> list[int]:
    return balanced_order(LABELS, torch.Generator().manual_seed(seed)).tolist()


@pytest.mark.parametrize("seed", range(5))
def test_each_class_comes_as_often_and_its_samples_too(seed: int) -> None:
    found = order(seed)
    assert len(found) == len(LABELS)
    assert {*Counter(LABELS[found].tolist()).values()} == {19}  # 57 / 3
    for label in (0, 1, 3):
        times = Counter(index for index in found if LABELS[index] == label)
        counts = [times[index] for index in np.flatnonzero(label == LABELS)]
        assert max(counts) - min(counts) <= 1


def test_it_goes_by_the_generator_and_mixes_the_classes() -> None:
    assert order(1) == order(1) != order(2)
    assert len({LABELS[index] for index in order()[:12]}) == 3
    left_out = [set(range(40)) - set(order(seed)) for seed in (1, 2)]
    assert left_out[0] != left_out[1]


def test_what_does_not_go_up_evenly_falls_on_any_class() -> None:
    labels = np.array([0] * 9 + [1] * 2)
    extra = set()
    for seed in range(20):
        found = labels[balanced_order(labels, torch.Generator().manual_seed(seed)).tolist()]
        extra.add(tuple(np.bincount(found)))
    assert extra == {(6, 5), (5, 6)}


def test_repeats_are_counted_in_their_order() -> None:
    assert repeats(torch.tensor([3, 0, 3, 1, 3, 0])).tolist() == [0, 0, 1, 0, 2, 1]


class Uneven:
    """Grey images, whose level is their number."""

    name, classes = "uneven", ("0", "1", "2", "3")

    def __len__(self) -> int:
        return len(LABELS)

    def labels(self) -> np.ndarray:
        return LABELS

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (4, 4), (index,) * 3), int(LABELS[index])

    def describe(self, index: int) -> str:
        return str(index)


def drawing(image: Image.Image) -> Tensor:
    """Return the image's level, and what was drawn for it."""
    return torch.stack([torch.tensor(float(image.getpixel((0, 0))[0])), torch.rand(())])  # type: ignore[index]


def batches(epoch: int = 0, start: int = 0, workers: int = 0, **share: int) -> list[list[float]]:
    made = TrainingBatches(Uneven(), drawing, batch_size=4, workers=workers, seed=3, balance=True, **share)  # type: ignore[arg-type]
    try:
        return [row for batch in made.epoch(epoch, start) for row in batch.inputs[IMAGES].tolist()]
    finally:
        made.close()


def test_a_sample_that_comes_again_is_augmented_otherwise() -> None:
    rows = batches()
    levels = [level for level, _ in rows]
    assert len(set(levels)) < len(levels)
    assert len({tuple(row) for row in rows}) == len(rows)


def test_workers_resuming_and_processes_change_nothing() -> None:
    whole = batches(1)
    assert batches(1, workers=2) == whole
    assert batches(1, start=5) == whole[20:]
    shared = [batches(1, rank=rank, world_size=2) for rank in (0, 1)]
    joined = [row for k in range(0, len(shared[0]), 4) for part in shared for row in part[k : k + 4]]
    assert joined == whole[: len(joined)]
