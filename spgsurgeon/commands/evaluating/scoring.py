"""The scoring itself: batches through the model, in one process or several."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.data import (
    Batch,
    EvaluationBatches,
    Source,
    check_drawn,
    over_processes,
    said_of_masks,
    said_of_traits,
)
from spgsurgeon.errors import SurgeonError
from spgsurgeon.loading import OpenedModel
from spgsurgeon.models import SamplePreprocessing
from spgsurgeon.runtime import Processes, choose_precision, join_processes
from spgsurgeon.tasks import Confusions, Tally, Task
from spgsurgeon.training import evaluate, evaluation_batches


@dataclass(frozen=True)
class Scored:
    """What came out: the scores, those of classes by name; None for the confusions if units have no classes."""

    scores: dict[str, Any]
    remarks: list[str]
    """What the samples gave reason to say."""
    passed_over: dict[str, str]
    """Why samples were left out, by their name."""
    confusions: Confusions | None


def score_model(
    opened: OpenedModel,
    task: Task,
    source: Source[Any],
    preprocessing: SamplePreprocessing,
    asked: EvaluationRequest,
    *,
    unreadable: str,
    told: Callable[[int, int], None],
) -> Scored:
    """Score the model on all samples; `told` hears how many of this process's are done. See `evaluate_model`."""
    with join_processes(asked.device) as processes:
        batches = evaluation_batches(
            source, preprocessing, asked.batch_size, asked.workers, processes, task=task, unreadable=unreadable
        )
        tally = task.tally(processes)
        try:
            module = opened.module.to(processes.device)
            precision = choose_precision(asked.precision, processes.device)
            counted = _counted(batches, told)
            scores = evaluate(module, counted, processes, precision, task, tally=tally, source=source)
            _check_scores(scores, precision)
            remarks = _said_of_seen(batches, tally, processes)
            passed_over, confusions = processes.joined(batches.unusable), tally.confusions()
        finally:
            batches.close()
    for score in task.by_class:
        scores[score.name] = dict(zip(source.classes, scores[score.name], strict=True))
    return Scored(scores, remarks, passed_over, confusions if task.has_classes else None)


def _counted(batches: EvaluationBatches, told: Callable[[int, int], None]) -> Iterator[Batch]:
    done = 0
    for batch in batches:
        told(done, batches.samples)
        yield batch
        done += len(batch.samples)
    told(done, batches.samples)


def _check_scores(scores: Mapping[str, Any], precision: torch.dtype) -> None:
    """Raise SurgeonError for a loss that is not a number: sound weights whose activations overflow."""
    if math.isfinite(scores["loss"]):
        return
    name = str(precision).removeprefix("torch.")
    raise SurgeonError(
        f"the model's outputs hold NaN or infinity in {name}, so they can't be scored (loss {scores['loss']})",
        hint="--precision float32" if name != "float32" else "are the images as the model wants them?",
        code="unsound-outputs",
    )


def _said_of_seen(batches: EvaluationBatches, tally: Tally, processes: Processes) -> list[str]:
    """Return what the images and masks that were scored give reason to say."""
    said = said_of_traits(over_processes(batches.traits, processes), batches.source)
    if (drawn := tally.drawn()) is not None:
        check_drawn(drawn, batches.source)
        said += said_of_masks(drawn, batches.source)
    return said
