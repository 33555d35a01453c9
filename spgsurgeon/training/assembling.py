"""What a retraining is put together from: the loop, its batches, and torch's switches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from spgsurgeon.data import AnyTransform, Augmentation, Cache, EvaluationBatches, TrainingBatches
from spgsurgeon.models import SamplePreprocessing
from spgsurgeon.recipe import Recipe
from spgsurgeon.replicas.kinds import replicas_from
from spgsurgeon.runs import RunFolder
from spgsurgeon.runtime import Processes, default_workers, deterministic_algorithms, fastest_convolutions, tf32_products
from spgsurgeon.training.data import choose_cache, settled_preprocessing
from spgsurgeon.training.evaluation import evaluation_batches
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.preparing import Case
from spgsurgeon.training.progress import Progress


@contextmanager
def switches(recipe: Recipe) -> Iterator[None]:
    """Set torch's own switches as the recipe asks, inside the block."""
    training = recipe.training
    with (
        fastest_convolutions(training.cudnn_benchmark),
        tf32_products(training.tf32),
        deterministic_algorithms(training.deterministic),
    ):
        yield


def make_retraining(
    case: Case,
    processes: Processes,
    run: RunFolder | None = None,
    progress: Progress | None = None,
    stands_on: Mapping[str, Any] | None = None,
) -> Retraining:
    """Return the retraining of a case, before its first step; without a `run` folder nothing is written.

    `stands_on` is what its checkpoints keep of recipe and data.
    """
    cache, replicas = _cache(case, processes, progress), replicas_from(case.manifest.trp)
    return Retraining(
        case.grafted,
        case.recipe,
        case.task,
        processes,
        _training_batches(case, processes, cache),
        _evaluation_batches(case, processes, cache),
        num_classes=len(case.data.train.classes),
        head=case.head,
        untrained=untrained_part(case),
        step_labels=replicas.step_labels(case.opened),
        length_labels=replicas.length_labels(case.opened),
        run=run,
        progress=progress,
        stands_on=stands_on,
    )


def untrained_part(case: Case) -> str | None:
    """Return what of the model has learned nothing yet: "head", "all" or None."""
    return None if not case.opened.untrained else "head" if case.opened.new_head else "all"


def _cache(case: Case, processes: Processes, progress: Progress | None) -> Cache | None:
    if case.recipe.data.cache == "none":
        return None
    parts = (
        (case.data.train, _training_transform(case)),
        (case.data.evaluation, case.task.evaluation_transform(scored_at(case))),
    )
    say = progress.warning if progress and processes.leads else lambda text: None
    return choose_cache(case.recipe.data.cache, processes.device, parts, say)


def _training_transform(case: Case) -> AnyTransform:
    augment = case.recipe.data.augment
    augmentation = Augmentation(crop=augment.crop, flip=augment.flip, policy=augment.policy, erase=augment.erase)
    return case.task.training_transform(trained_at(case), augmentation)


def trained_at(case: Case) -> SamplePreprocessing:
    """Return how samples are prepared for training."""
    return settled_preprocessing(case.opened, case.recipe.data, case.recipe.data.image_size)


def scored_at(case: Case) -> SamplePreprocessing:
    """Return how samples are prepared for scoring."""
    data = case.recipe.data
    return settled_preprocessing(case.opened, data, data.eval_image_size or data.image_size)


def _training_batches(case: Case, processes: Processes, cache: Cache | None) -> TrainingBatches:
    data, training = case.recipe.data, case.recipe.training
    return TrainingBatches(
        case.data.train,
        _training_transform(case),
        batch_size=training.batch_size,
        workers=default_workers() if data.workers is None else data.workers,
        seed=training.seed,
        rank=processes.rank,
        world_size=processes.world_size,
        pin_memory=processes.device.type == "cuda",
        unreadable=data.unreadable,
        cache=cache,
        collate=case.task.collation(case.opened.preprocessing),
        drop_last=training.drop_last,
        balance=data.balance,
    )


def _evaluation_batches(case: Case, processes: Processes, cache: Cache | None) -> EvaluationBatches:
    data, training = case.recipe.data, case.recipe.training
    return evaluation_batches(
        case.data.evaluation,
        scored_at(case),
        training.eval_batch_size or training.batch_size,
        data.workers,
        processes,
        task=case.task,
        unreadable=data.unreadable,
        cache=cache,
    )
