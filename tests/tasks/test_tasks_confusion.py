"""Confusions are scikit-learn's, however the units lie and are split, and of too many classes their sums remain."""

from __future__ import annotations

import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score
from torch import Tensor

from spgsurgeon.data import IGNORED
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.tasks import confusion
from spgsurgeon.tasks.confusion import Confusion, Confusions, class_sums
from spgsurgeon.tasks.registry import TASKS

ONE_PROCESS = Processes(0, 1, torch.device("cpu"))
CLASSES = 4


def drawn(*units: int) -> tuple[Tensor, Tensor]:
    """Return predicted and true classes, [30, ...], of which some are ignored and one class is never true."""
    generator = torch.Generator().manual_seed(len(units))
    predicted = torch.randint(CLASSES, (30, *units), generator=generator)
    target = torch.randint(CLASSES - 1, (30, *units), generator=generator)
    return predicted, torch.where(torch.rand(target.shape, generator=generator) < 0.2, IGNORED, target)


def counted(predicted: Tensor, target: Tensor, parts: int = 1) -> Confusions:
    counts = Confusion(ONE_PROCESS)
    for some, labels in zip(predicted.chunk(parts), target.chunk(parts), strict=True):
        counts.add(some, labels, CLASSES)
    found = counts.over_processes()
    assert found is not None
    return found


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("units", [(), (5,), (4, 3)])
def test_the_matrix_is_scikit_learns(units: tuple[int, ...], parts: int) -> None:
    predicted, target = drawn(*units)
    found = counted(predicted, target, parts)
    there = target != IGNORED
    expected = confusion_matrix(target[there], predicted[there], labels=range(CLASSES))
    assert found.matrix is not None
    assert found.matrix.tolist() == expected.tolist()
    assert class_sums(predicted, target, CLASSES).tolist() == found.sums.tolist()
    recalls = recall_score(target[there], predicted[there], labels=range(CLASSES - 1), average=None)
    assert found.accuracies == [*map(pytest.approx, 100 * recalls), None]


def test_of_too_many_classes_there_are_the_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    predicted, target = drawn(5)
    whole = counted(predicted, target)
    monkeypatch.setattr(confusion, "MOST_CLASSES", CLASSES - 1)
    found = counted(predicted, target, 3)
    assert found.matrix is None
    assert found.sums.tolist() == whole.sums.tolist()
    assert found.most_frequent() == []
    document = found.document("abcd", whole=True)
    assert document["confusion_matrix"] is None
    assert document["classes"] == whole.document("abcd", whole=True)["classes"]


def test_the_most_frequent_confusions_come_first_with_their_share_of_the_class() -> None:
    target = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([1, 1, 1, 0, 0, 1, 2])
    document = counted(predicted, target).document(["cat", "dog", "emu", "fox"], whole=False)
    assert document["confusions"] == [
        {"class": "cat", "predicted": "dog", "units": 3, "percent": 75.0},
        {"class": "dog", "predicted": "cat", "units": 1, "percent": 50.0},
    ]
    assert document["classes"][3] == {"class": "fox", "units": 0, "accuracy": None}


def test_a_document_has_the_matrix_of_few_classes_and_of_many_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    found = counted(*drawn())
    assert found.document("abcd", whole=False)["confusion_matrix"] is not None
    monkeypatch.setattr(confusion, "FEW_CLASSES", CLASSES - 1)
    monkeypatch.setattr(confusion, "MOST_FREQUENT", 2)
    short, whole = (found.document("abcd", whole=asked) for asked in (False, True))
    assert (short["confusion_matrix"], len(short["confusions"])) == (None, 2)
    assert (whole["confusion_matrix"], len(whole["confusions"])) == (found.matrix.tolist(), len(found.most_frequent()))


def test_nothing_counted_has_no_confusions() -> None:
    assert Confusion(ONE_PROCESS).over_processes() is None


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.has_classes])
def test_every_task_whose_units_have_classes_counts_them(name: str) -> None:
    logits, labels = torch.eye(3)[:, [0, 2, 1]], torch.tensor([0, 1, 1])
    tally = TASKS[name].tally(ONE_PROCESS)
    if name == "segmentation":
        logits, labels = logits[:, :, None, None], labels[:, None, None]
    tally.add(logits, labels)
    found = tally.confusions()
    assert found is not None
    assert found.sums.tolist() == [[1, 1, 0], [1, 2, 0], [1, 1, 1]]
