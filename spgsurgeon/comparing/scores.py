"""The scores of a comparison's chosen runs, picture by picture, and how far an arm's are from plain's.

Shapes: N pictures, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spgsurgeon.commands.evaluate import evaluation_batches
from spgsurgeon.comparing.statistics import PairedDifference, agreeing, paired_difference, resampled_difference
from spgsurgeon.data.opening import choose_cache, open_data
from spgsurgeon.data.transforms.augmentation import evaluation_transform
from spgsurgeon.errors import UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.recipe.data_section import HOLDOUT
from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.runtime.distributed import Processes, choose_precision, join_processes
from spgsurgeon.tasks.scoring import (
    ClassificationTally,
    Scores,
    SegmentationTally,
    confusion_of,
    hits_by_place,
    overlaps_of,
)
from spgsurgeon.training.evaluation import evaluate


@dataclass(frozen=True)
class Scored:
    """Scores on the split that chose nothing, and what each picture, in the data's order, adds to them.

    `counts` is int64 [N], 1 where the picture is right; with masks [N, 2, C], the pixels in the intersection and in the
    union of what is drawn and what is predicted of each class.
    """

    scores: Scores
    counts: NDArray[np.int64]


def score(folder: Path, recipe: Recipe) -> Scored:
    """Return what the model in `folder`, a run's best checkpoint or a base, scores on the recipe's data.eval."""
    data, training = recipe.data, recipe.training
    assert data.eval != HOLDOUT, "learning rates were chosen on it"
    opened = open_model(str(folder))
    source = open_data(data).evaluation
    preprocessing = opened.preprocessing.at(data.eval_image_size or data.image_size)
    size = training.eval_batch_size or training.batch_size
    with join_processes(training.device) as processes:
        precision, tally = choose_precision(training.precision, processes.device), _TALLIES[opened.task](processes)
        transform = evaluation_transform(preprocessing)
        cache = choose_cache(data.cache, processes.device, [(source, transform)], lambda text: None)
        batches = evaluation_batches(
            source,
            preprocessing,
            size,
            data.workers,
            processes,
            task=opened.task,
            unreadable=data.unreadable,
            cache=cache,
        )
        try:
            scores = evaluate(opened.module.to(processes.device), batches, processes, precision, tally=tally)
        finally:
            batches.close()
    del scores["images_per_second"]
    return Scored(scores, torch.cat(tally.counted).cpu().numpy().astype(np.int64))


class _CountedPictures(ClassificationTally):
    """Also remembers which pictures were right."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes)
        self.counted: list[Tensor] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        self.counted.append(hits_by_place(logits, target)[:, 0])
        super().add(logits, target)


class _CountedPixels(SegmentationTally):
    """Also remembers the intersections and unions of each picture."""

    def __init__(self, processes: Processes) -> None:
        super().__init__(processes)
        self.counted: list[Tensor] = []

    def add(self, logits: Tensor, target: Tensor) -> None:
        for one in range(len(target)):
            overlaps = overlaps_of(confusion_of(logits[one : one + 1], target[one : one + 1]))
            self.counted.append(torch.stack(overlaps)[None])
        super().add(logits, target)


_TALLIES: dict[str, type[_CountedPictures | _CountedPixels]] = {
    "classification": _CountedPictures,
    "segmentation": _CountedPixels,
}


def against_plain(plain: Sequence[Scored], arm: Sequence[Scored], metric: str) -> dict[str, Any]:
    """Return an arm's difference to plain over the seeds or, where there is one only, over the pictures."""
    by_seed = [a.scores[metric] - p.scores[metric] for a, p in zip(arm, plain, strict=True)]
    if len(by_seed) > 1:
        # Shares of pixels take any value; shares of pictures are rounded to one picture.
        resolution = 100 / plain[0].scores["samples"] if metric == "top1" else 0.0
        found = paired_difference(by_seed, resolution=resolution)
    else:
        found = _over_pictures(plain[0].counts, arm[0].counts)
    return {"difference": {**asdict(found), "agree": agreeing(by_seed)}, "verdict": found.verdict}


def _over_pictures(plain: NDArray[np.int64], arm: NDArray[np.int64]) -> PairedDifference:
    if plain.ndim == 1:
        return paired_difference((100.0 * (arm - plain)).tolist())
    seen = plain[:, 1].any(1)  # pictures that are ignored whole add nothing, and have no score of their own
    if seen.sum() < 2:
        raise UsageError(
            "one seed, and all pixels ignored in all pictures but one, have no spread, hence no interval",
            hint="--seeds 5, or more pictures in data.eval",
        )
    one, other = plain[seen].astype(float), arm[seen].astype(float)
    return resampled_difference(lambda drawn: _mean_iou(drawn, other) - _mean_iou(drawn, one), len(one))


def _mean_iou(drawn: NDArray[np.float64], counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean IoU in percent, [R], of pictures that were `drawn` [R, N] times; the same as `SegmentationTally`.

    Each picture has a union with some class, so that some class is there in whatever was drawn.
    """
    hits, unions = drawn @ counts[:, 0], drawn @ counts[:, 1]
    there = unions > 0
    found: NDArray[np.float64] = 100 * (hits / np.where(there, unions, 1)).sum(1) / there.sum(1)
    return found
