"""Segmentation scores against a slow count and torchvision's definition; exact counts, whatever the number."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from launches import free_port
from pretended_cuda import CUDA, PROCESSES, PretendedCUDA, needs_cuda_build
from tiny_masks import TinySegmenter
from tiny_runs import ONE_PROCESS, images_with
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.data.sources.records.questions import Answers, Asked
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.errors import UsageError
from spgsurgeon.objective.chunked_readout import DeferredLogits
from spgsurgeon.runtime.distributed import Processes, join_processes, sum_dtype
from spgsurgeon.tasks.classification import ClassificationTally
from spgsurgeon.tasks.question_answering import Questions
from spgsurgeon.tasks.registry import TASKS
from spgsurgeon.tasks.segmentation import SEGMENTATION, SegmentationTally
from spgsurgeon.tasks.task import Scores
from spgsurgeon.training.evaluation import evaluate

Pairs = list[tuple[Tensor, Tensor]]


def drawn(classes: int = 5, batches: int = 3) -> Pairs:
    """Return logits and masks in which class 3 is neither drawn nor predicted, and some pixels are ignored."""
    torch.manual_seed(1)
    pairs = []
    for number in range(batches):
        masks = torch.randint(0, 3, (2, 6, 4 + number))
        masks[:, :2] = torch.tensor([4, IGNORED])[torch.randint(0, 2, masks[:, :2].shape)]
        logits = torch.randn(2, classes, 6, 4 + number)
        logits[:, 3] = -9.0
        pairs.append((logits, masks))
    return pairs


def scored(pairs: Pairs, processes: Processes = ONE_PROCESS) -> Scores:
    tally = SegmentationTally(processes)
    for logits, masks in pairs:
        tally.add(logits, masks)
    return tally.scores()


def by_hand(pairs: Pairs) -> dict[str, Any]:
    """Count pixel by pixel in plain Python."""
    confusion = [[0] * 5 for _ in range(5)]
    for logits, masks in pairs:
        predicted = logits.argmax(1).flatten().tolist()
        for truth, guess in zip(masks.flatten().tolist(), predicted, strict=True):
            if truth != IGNORED:
                confusion[truth][guess] += 1
    iou: list[float | None] = []
    for label in range(5):
        true = sum(confusion[label])
        guessed = sum(row[label] for row in confusion)
        both = confusion[label][label]
        iou.append(100 * both / (true + guessed - both) if true + guessed else None)
    there = [value for value in iou if value is not None]
    pixels = sum(map(sum, confusion))
    return {
        "mean_iou": sum(there) / len(there),
        "class_iou": iou,
        "pixel_accuracy": 100 * sum(confusion[label][label] for label in range(5)) / pixels,
    }


def torchvisions(pairs: Pairs, classes: int) -> tuple[float, float]:
    """Return mean IoU and pixel accuracy as the formulas of its segmentation reference have them."""
    matrix = torch.zeros(classes, classes)
    for logits, masks in pairs:
        for truth in range(classes):
            for guess in range(classes):
                matrix[truth, guess] += ((masks == truth) & (logits.argmax(1) == guess)).sum()
    hits = matrix.diagonal()
    iou = hits / (matrix.sum(1) + matrix.sum(0) - hits)
    return 100 * iou.mean().item(), 100 * (hits.sum() / matrix.sum()).item()


def test_scores_by_hand() -> None:
    found, expected = scored(drawn()), by_hand(drawn())
    assert found["class_iou"] == pytest.approx(expected["class_iou"])
    assert found["class_iou"][3] is None
    assert found["mean_iou"] == pytest.approx(expected["mean_iou"])
    assert found["pixel_accuracy"] == pytest.approx(expected["pixel_accuracy"])
    assert found["samples"] == 6
    entropy = [cross_entropy(logits, masks, reduction="none")[masks != IGNORED] for logits, masks in drawn()]
    assert found["loss"] == pytest.approx(torch.cat(entropy).mean().item())


def test_scores_are_torchvisions_where_every_class_is_there() -> None:
    pairs = [(torch.randn(2, 3, 5, 5), torch.randint(0, 3, (2, 5, 5))) for _ in range(3)]
    found = scored(pairs)
    assert (found["mean_iou"], found["pixel_accuracy"]) == pytest.approx(torchvisions(pairs, 3))


def test_a_class_that_is_never_right_counts_as_zero() -> None:
    logits = torch.eye(3)[[0, 0, 1]].T[None, :, None]  # predicts 0, 0, 1
    found = scored([(logits, torch.tensor([[[0, 1, 0]]]))])
    assert found["class_iou"] == pytest.approx([100 / 3, 0.0, None])
    assert found["mean_iou"] == pytest.approx(100 / 6)


def test_predictions_where_a_mask_is_ignored_are_in_no_union() -> None:
    pairs = drawn()
    spoilt = [(torch.where((masks == IGNORED)[:, None], logits.flip(1), logits), masks) for logits, masks in pairs]
    assert not torch.equal(spoilt[0][0], pairs[0][0])
    assert scored(spoilt) == scored(pairs)


def test_of_several_outputs_the_one_of_inference_is_scored() -> None:
    model = TinySegmenter().eval()
    images, masks = torch.randn(2, 3, 6, 6), torch.randint(0, 4, (2, 6, 6))
    found = evaluate(model, [images_with(masks, images)], ONE_PROCESS, torch.float32, SEGMENTATION)
    assert found.pop("images_per_second") > 0
    assert found == scored([(model(images)["out"].detach(), masks)])
    assert found != scored([(model(images)["aux"].detach(), masks)])


@pytest.mark.parametrize("task", TASKS)
def test_nothing_to_score(task: str) -> None:
    with pytest.raises(UsageError, match=r"not one (image|sample)"):
        TASKS[task].tally(ONE_PROCESS).scores()


def test_nothing_but_ignored_pixels() -> None:
    with pytest.raises(UsageError, match="not one pixel"):
        scored([(torch.randn(1, 3, 4, 4), torch.full((1, 4, 4), IGNORED))])


def asked() -> tuple[torch.Tensor, Questions]:
    """Return logits of two tokens for one question, whose answer is the second."""
    sample = (Asked("which", "a b"), Answers(("b",), (2,)))
    return torch.eye(2)[None], Questions(torch.tensor([[[1, 0, 2], [1, 1, 3]]]), [sample])


def tokens() -> tuple[DeferredLogits, Tensor]:
    """Return hidden states of three tokens, which are their logits, and what is to be predicted."""
    return DeferredLogits(torch.eye(3)[None], lambda hidden: hidden), torch.tensor([[0, 1, -100]])


EXAMPLES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "segmentation": lambda: drawn()[0],
    "question-answering": asked,
    "causal-lm": tokens,
    "masked-lm": tokens,
}


@pytest.mark.parametrize("task", TASKS)
def test_the_scores_are_the_metrics_of_the_task(task: str) -> None:
    tally = TASKS[task].tally(ONE_PROCESS)
    tally.add(*EXAMPLES.get(task, lambda: (torch.eye(3), torch.tensor([0, 1, 1])))())
    named = [metric.name for metric in (*TASKS[task].metrics, *TASKS[task].by_class)]
    assert tally.scores().keys() == {*named, "samples"}


def test_counts_beyond_what_float32_holds() -> None:
    """2^24 + 1 is the first whole number that float32 skips."""
    many = 2**24
    classification = ClassificationTally(ONE_PROCESS)
    classification._counts += torch.tensor([many, many, many])
    classification.add(torch.eye(2)[:1], torch.tensor([0]))
    assert classification.scores()["samples"] == many + 1
    assert classification.scores()["top1"] == 100.0
    segmentation = SegmentationTally(ONE_PROCESS)
    segmentation.add(torch.eye(2)[:, :, None, None], torch.tensor([[[0]], [[0]]]))  # one right, one wrong
    assert segmentation._confusion._counts is not None
    segmentation._confusion._counts += torch.tensor([many, 0, 0, 0, 0])
    assert segmentation.scores()["pixel_accuracy"] == 100 * (many + 1) / (many + 2)


@needs_cuda_build
@pytest.mark.parametrize(("task", "units"), [("classification", ()), ("segmentation", (6, 4))])
def test_counting_on_cuda_waits_for_nothing(task: str, units: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    with PretendedCUDA(monkeypatch) as cuda:
        tally = TASKS[task].tally(PROCESSES)
        logits = torch.randn(2, 7, *units, device=CUDA)
        cuda.waits.clear()
        for _ in range(2):
            tally.add(logits, logits.argmax(1))
        assert cuda.waits == []


def test_sums_are_float64_but_on_mps() -> None:
    assert [sum_dtype(torch.device(kind)) for kind in ("cpu", "cuda", "mps")] == [
        torch.float64,
        torch.float64,
        torch.float32,
    ]


def in_each_process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = (folder / "port").read_text()
    with join_processes("cpu") as processes:
        found = {
            "shared": scored(drawn()[rank::2], processes),
            "one has none": scored(drawn() if rank == 0 else [], processes),
        }
    torch.save(found, folder / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_count_each_pixel_once(tmp_path: Path) -> None:
    (tmp_path / "port").write_text(str(free_port()))
    torch.multiprocessing.spawn(in_each_process, (tmp_path,), nprocs=2)
    alone = scored(drawn())
    for rank in range(2):
        for found in torch.load(tmp_path / f"{rank}.pt").values():
            assert found.pop("loss") == pytest.approx(alone["loss"])
            assert found == {key: value for key, value in alone.items() if key != "loss"}
