"""The scores of a comparison's chosen runs, sample by sample, and how far an arm's are from plain's.

Shapes: N samples, R resamples of them.
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

from spgsurgeon.comparing.statistics import PairedDifference, agreeing, paired_difference, resampled_difference
from spgsurgeon.errors import UsageError
from spgsurgeon.loading import ModelRequest, open_model
from spgsurgeon.recipe import HOLDOUT, Recipe
from spgsurgeon.runtime import Processes, choose_precision, join_processes
from spgsurgeon.tasks import Confusions, Scores, Task
from spgsurgeon.training import (
    choose_cache,
    evaluate,
    evaluation_batches,
    for_images_of,
    open_data,
    settled_preprocessing,
    with_models_labels,
)


@dataclass(frozen=True)
class Scored:
    """Scores on the split that chose nothing, and what each sample, in the data's order, adds to them.

    `counts` is [N, ...], see `Task.counts`.
    """

    scores: Scores
    counts: NDArray[Any]


def score(folder: Path, recipe: Recipe) -> Scored:
    """Return what the model in `folder`, a run's best checkpoint or a base, scores on the recipe's data.eval."""
    data, training = recipe.data, recipe.training
    assert data.eval != HOLDOUT, "learning rates were chosen on it"
    opened = for_images_of(data, open_model(ModelRequest(str(folder))))  # a base has the size that it came with
    source, _ = with_models_labels(
        open_data(data).evaluation, opened, data.source, model=str(folder), order=data.class_order
    )
    task = opened.task.scored_by(training.metric)
    preprocessing = settled_preprocessing(opened, data, data.eval_image_size or data.image_size)
    source = task.arranged(source, preprocessing)
    size = training.eval_batch_size or training.batch_size
    with join_processes(training.device) as processes:
        precision = choose_precision(training.precision, processes.device)
        tally = _CountedEach(task, processes)
        transform = task.evaluation_transform(preprocessing)
        cache = choose_cache(data.cache, processes.device, [(source, transform)], lambda text: None)
        batches = evaluation_batches(
            source,
            preprocessing,
            size,
            data.workers,
            processes,
            task=task,
            unreadable=data.unreadable,
            cache=cache,
        )
        try:
            module = opened.module.to(processes.device)
            scores = evaluate(module, batches, processes, precision, task, tally=tally, source=source)
        finally:
            batches.close()
    del scores["images_per_second"]
    return Scored(scores, torch.cat(tally.counted).cpu().numpy())


class _CountedEach:
    """A tally that also remembers what each sample adds."""

    def __init__(self, task: Task, processes: Processes) -> None:
        self._tally, self._counts = task.tally(processes), task.counts
        self.counted: list[Tensor] = []

    def add(self, logits: Any, target: Any) -> None:
        self.counted.append(self._counts(logits, target))
        self._tally.add(logits, target)

    def scores(self) -> Scores:
        return self._tally.scores()

    def confusions(self) -> Confusions | None:
        return self._tally.confusions()

    def drawn(self) -> list[int] | None:
        return self._tally.drawn()


def against_plain(plain: Sequence[Scored], arm: Sequence[Scored], task: Task) -> dict[str, Any]:
    """Return an arm's difference to plain over the seeds or, where there is one only, over the samples."""
    metric = task.primary
    by_seed = [a.scores[metric.name] - p.scores[metric.name] for a, p in zip(arm, plain, strict=True)]
    if len(by_seed) > 1:
        # Shares of samples are rounded to one sample; other scores take any value.
        resolution = 100 / plain[0].scores["samples"] if task.from_counts is None else 0.0
        found = paired_difference(by_seed, resolution=resolution)
    else:
        found = _over_samples(plain[0].counts.astype(float), arm[0].counts.astype(float), task)
    verdict = found.verdict(higher_is_better=metric.higher_is_better)
    return {"difference": {**asdict(found), "agree": agreeing(by_seed)}, "verdict": verdict}


def _over_samples(plain: NDArray[np.float64], arm: NDArray[np.float64], task: Task) -> PairedDifference:
    from_counts = task.from_counts
    if from_counts is None:
        return paired_difference((100.0 * (arm - plain)).tolist())
    seen = plain.reshape(len(plain), -1).any(1)  # samples that are ignored whole add nothing, and have no score
    if seen.sum() < 2:
        raise UsageError(
            f"one seed, and every {task.unit} ignored in all samples but one, have no spread, hence no interval",
            hint="--seeds 5, or more samples in data.eval",
        )
    one, other = plain[seen], arm[seen]

    def difference(drawn: NDArray[np.float64]) -> NDArray[Any]:
        """Return the difference of the scores, [R], of samples that were drawn so many times, [R, N]."""
        found: NDArray[Any] = from_counts(np.tensordot(drawn, other, 1)) - from_counts(np.tensordot(drawn, one, 1))
        return found

    return resampled_difference(difference, len(one))
