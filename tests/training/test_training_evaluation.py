"""Scores of the base path against hand counts."""

import pytest
import torch
from tiny_runs import ONE_PROCESS, images_with, tiny_grafted
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from spgsurgeon.errors import UsageError
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.training.evaluation import evaluate


class Table(nn.Module):
    """Logits by row number: images are of one pixel, that number."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images.flatten()]


def scores(logits: Tensor, labels: Tensor, batch: int = 4, precision: torch.dtype = torch.float32) -> dict[str, float]:
    pixels = torch.arange(len(labels)).view(-1, 1, 1, 1)
    batches = map(images_with, labels.split(batch), pixels.split(batch))
    return evaluate(Table(logits), batches, ONE_PROCESS, precision, CLASSIFICATION)


def test_scores_by_hand() -> None:
    torch.manual_seed(0)
    logits, labels = torch.randn(23, 9), torch.randint(0, 9, (23,))
    found = scores(logits, labels)
    rank = [(row > row[label]).sum().item() for row, label in zip(logits, labels, strict=True)]
    entropy = [-row.log_softmax(0)[label].item() for row, label in zip(logits, labels, strict=True)]
    assert found["top1"] == pytest.approx(100 * sum(r == 0 for r in rank) / 23)
    assert found["top5"] == pytest.approx(100 * sum(r < 5 for r in rank) / 23)
    assert found["loss"] == pytest.approx(sum(entropy) / 23)
    assert found["samples"] == 23
    assert found["images_per_second"] > 0


def test_fewer_than_five_classes() -> None:
    assert scores(torch.eye(3), torch.tensor([0, 1, 0]))["top5"] == 100.0


def test_the_base_is_scored_in_eval_mode() -> None:
    grafted = tiny_grafted().train()
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    before = {key: value.clone() for key, value in grafted.state_dict().items()}
    first = evaluate(grafted, [images_with(labels, images)], ONE_PROCESS, torch.float32, CLASSIFICATION)
    second = evaluate(grafted.base, [images_with(labels, images)], ONE_PROCESS, torch.float32, CLASSIFICATION)
    assert first | {"images_per_second": 0} == second | {"images_per_second": 0}
    assert first["samples"] == 6
    assert all(torch.equal(value, before[key]) for key, value in grafted.state_dict().items())


@pytest.mark.parametrize(
    ("wanted", "found"),
    [({}, torch.channels_last), ({"memory_format": "contiguous"}, torch.contiguous_format)],
    ids=["auto", "contiguous"],
)
def test_pictures_and_convolutions_lie_as_in_training(wanted: dict[str, str], found: torch.memory_format) -> None:
    base = tiny_grafted(replicas=0).base
    base.body[0].register_forward_hook(lambda module, inputs, _: seen.extend((inputs[0], module.weight)))
    seen: list[Tensor] = []
    batch = images_with(torch.arange(6) % 4, torch.randn(6, 3, 8, 8))
    evaluate(base, [batch], ONE_PROCESS, torch.float32, CLASSIFICATION, **wanted)
    assert [tensor.is_contiguous(memory_format=found) for tensor in seen] == [True, True]


def test_scores_are_float32_under_autocast() -> None:
    seen: list[Tensor] = []
    grafted = tiny_grafted()
    grafted.base.head.register_forward_hook(lambda _, inputs, output: seen.append(output))
    images, labels = torch.randn(6, 3, 8, 8), torch.randint(0, 4, (6,))
    low = evaluate(grafted, [images_with(labels, images)], ONE_PROCESS, torch.bfloat16, CLASSIFICATION)
    assert seen[0].dtype == torch.bfloat16
    assert low["loss"] == pytest.approx(cross_entropy(seen[0].float(), labels).item())
    evaluate(grafted, [images_with(labels, images)], ONE_PROCESS, torch.float32, CLASSIFICATION)
    assert seen[1].dtype == torch.float32


def test_nothing_to_score() -> None:
    with pytest.raises(UsageError, match="not one image"):
        evaluate(Table(torch.eye(2)), [], ONE_PROCESS, torch.float32, CLASSIFICATION)
