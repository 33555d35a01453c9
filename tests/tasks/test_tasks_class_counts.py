"""Scores by class counts: scikit-learn's, of any number of classes, however the samples are split."""

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef

from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.tasks.class_counts import ALTERNATIVES, ClassTally, class_counts
from spgsurgeon.tasks.registry import task_of, task_scored_by
from spgsurgeon.tasks.text_classification import TEXT_CLASSIFICATION

ONE_PROCESS = Processes(0, 1, torch.device("cpu"))


def drawn(classes: int, samples: int = 60):
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn(samples, classes, generator=generator)
    return logits, torch.randint(classes, (samples,), generator=generator)


def tallied(logits, target, parts: int = 3):
    tally = ClassTally(ONE_PROCESS)
    for some, labels in zip(logits.chunk(parts), target.chunk(parts), strict=True):
        tally.add(some, labels)
    return tally.scores()


def expected(logits, target):
    predicted, average = logits.argmax(1), "binary" if logits.shape[1] == 2 else "macro"
    return {
        "accuracy": 100 * accuracy_score(target, predicted),
        "matthews": 100 * matthews_corrcoef(target, predicted),
        "f1": 100 * f1_score(target, predicted, average=average, zero_division=0),
    }


@pytest.mark.parametrize("classes", [2, 3, 11])
def test_scores_are_scikit_learns(classes) -> None:
    logits, target = drawn(classes)
    found = tallied(logits, target)
    for name, score in expected(logits, target).items():
        assert found[name] == pytest.approx(score), name
    assert found["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, target).item())
    assert found["samples"] == 60


@pytest.mark.parametrize("case", ["one answer", "a class that is not there"])
def test_scores_without_a_value_are_scikit_learns_too(case) -> None:
    logits, target = drawn(3)
    logits = torch.tensor([[0.0, 9.0, 0.0]]).expand(60, 3) if case == "one answer" else logits
    target = torch.where(target == 2, 0, target) if case != "one answer" else target
    logits = logits.clone()
    if case != "one answer":
        logits[:, 2] = -9
    found = tallied(logits, target)
    assert {name: found[name] for name in ("accuracy", "matthews", "f1")} == pytest.approx(expected(logits, target))


@pytest.mark.parametrize("name", ALTERNATIVES)
def test_resampled_scores_are_those_of_the_samples_drawn(name) -> None:
    logits, target = drawn(3)
    measure = ALTERNATIVES[name]
    counts = measure.counts(logits, target).numpy()
    times = np.random.default_rng(0).multinomial(60, [1 / 60] * 60, size=4)
    assert measure.from_counts is not None
    found = measure.from_counts(np.tensordot(times.astype(float), counts.astype(float), 1))
    for resample, score in zip(times, found, strict=True):
        rows = torch.from_numpy(np.repeat(np.arange(60), resample))
        assert score == pytest.approx(expected(logits[rows], target[rows])[name])
    assert class_counts(logits, target).shape == (60, 3, 3)


def test_a_score_can_come_first() -> None:
    task = TEXT_CLASSIFICATION.scored_by("matthews")
    assert (task.primary.name, TEXT_CLASSIFICATION.primary.name) == ("matthews", "accuracy")
    assert {metric.name for metric in task.metrics} == {metric.name for metric in TEXT_CLASSIFICATION.metrics}
    assert task.scored_by("accuracy").counts is TEXT_CLASSIFICATION.counts
    assert TEXT_CLASSIFICATION.scored_by(None) is TEXT_CLASSIFICATION
    scores = tallied(*drawn(2))
    assert task_of(scores | {"metric": "f1"}).primary.name == "f1"
    assert task_of(scores).primary.name == "accuracy"
    assert task_scored_by("matthews").primary.name == "matthews"
    with pytest.raises(UsageError) as caught:
        TEXT_CLASSIFICATION.scored_by("mathews")
    assert (caught.value.code, "matthews" in str(caught.value.hint)) == ("unknown-metric", True)
