"""Batches: a function of seed, epoch and sample only, whatever the workers, ranks and interruptions."""

import itertools
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import in_one
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from spgsurgeon.data.loading.feed import Feed, start_worker
from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import ImageSource
from spgsurgeon.data.transforms.augmentation import Augmentation, evaluation_transform, training_transform
from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.models.inputs import IMAGES
from spgsurgeon.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(input_size=(3, 16, 16))
TRAINING = training_transform(PREPROCESSING, Augmentation(policy="trivialaugment-wide", erase=0.5))
EVALUATION = evaluation_transform(PREPROCESSING)
Pairs = list[Batch]


class Numbered:
    """Images whose colour is their number, which also is their label."""

    name = "numbered"

    def __init__(self, count: int) -> None:
        self.count = count
        self.classes = tuple(str(number) for number in range(count))

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (16, 12), (index, 2 * index, 255 - index)), index

    def describe(self, index: int) -> str:
        return f"numbered {index}"


@pytest.fixture(autouse=True)
def no_worker_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def training(source: ImageSource | None = None, workers: int = 0, **options: int) -> TrainingBatches:
    settings = {"batch_size": 4, "seed": 3} | options
    return TrainingBatches(source or Numbered(50), TRAINING, workers=workers, **settings)


def epoch_of(batches: TrainingBatches, epoch: int, start: int = 0) -> Pairs:
    result = list(batches.epoch(epoch, start))
    batches.close()
    return result


def equal(left: Pairs, right: Pairs) -> bool:
    return len(left) == len(right) and all(
        all(map(torch.equal, tree_leaves(one), tree_leaves(other))) for one, other in zip(left, right, strict=True)
    )


def test_the_number_of_workers_changes_nothing() -> None:
    alone = epoch_of(training(), epoch=1)
    assert equal(alone, epoch_of(training(workers=2), epoch=1))
    images, labels = alone[0].inputs[IMAGES], alone[0].targets
    assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 16, 16), torch.float32, torch.int64)
    assert len(alone) == training().batches_per_epoch == 12


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_gives_the_tail(workers: int) -> None:
    whole = epoch_of(training(), epoch=2)
    assert equal(epoch_of(training(workers=workers), epoch=2, start=5), whole[5:])
    assert epoch_of(training(workers=workers), epoch=2, start=12) == []


def test_epochs_and_seeds_differ_in_order_and_in_augmentation() -> None:
    first, second = epoch_of(training(), 0), epoch_of(training(), 1)
    other = epoch_of(training(seed=4), 0)
    order = [torch.cat([labels for _, labels, _ in batches]).tolist() for batches in (first, second, other)]
    assert order[0] != order[1]
    assert order[0] != order[2]
    assert len(set(order[0])) == len(order[0]) == 48
    by_label = [
        {int(c): a for batch in run for a, c in zip(batch.inputs[IMAGES], batch.targets, strict=True)}
        for run in (first, second)
    ]
    shared = by_label[0].keys() & by_label[1].keys()
    assert any(not torch.equal(by_label[0][label], by_label[1][label]) for label in shared)


def test_ranks_share_out_the_joined_batch() -> None:
    joined = epoch_of(training(batch_size=6), epoch=0)
    ranks = [epoch_of(training(batch_size=2, rank=rank, world_size=3), epoch=0) for rank in range(3)]
    together = [tree_map(in_one, *step) for step in zip(*ranks, strict=True)]
    assert equal(together, joined)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_rest_of_an_epoch_is_a_last_batch_that_ranks_share(world_size: int) -> None:
    """Of 50 samples in joined batches of 12, two are left: a sample each for two processes, too few for three."""
    size = 12 // world_size
    ranks = [
        epoch_of(training(batch_size=size, rank=rank, world_size=world_size, drop_last=False), epoch=1)
        for rank in range(world_size)
    ]
    assert {len(batches) for batches in ranks} == {4 if world_size == 3 else 5}
    together = [tree_map(in_one, *step) for step in zip(*ranks, strict=True)]
    assert equal(epoch_of(training(batch_size=12), epoch=1), together[:4])
    seen = [label for batches in ranks for batch in batches for label in batch.targets.tolist()]
    assert sorted(seen) == list(range(50)) if world_size < 3 else len(set(seen)) == 48
    if world_size < 3:
        assert [len(batches[-1].targets) for batches in ranks] == [2 // world_size] * world_size


def test_resuming_gives_the_rest_too() -> None:
    whole = epoch_of(training(drop_last=False), epoch=2)
    assert equal(epoch_of(training(drop_last=False, workers=2), epoch=2, start=11), whole[11:])
    assert training(drop_last=False).divisors(10, 3) == [10 / 4, 10 / 4, 10 / 2]
    assert training(drop_last=False).divisors(0, 3) == [3, 3, 3]


def test_fewer_samples_than_a_batch_are_one_batch_if_the_last_is_kept() -> None:
    batches = training(Numbered(3), drop_last=False)
    assert [len(batch.targets) for batch in epoch_of(batches, 0)] == [3]
    with pytest.raises(UsageError) as caught:
        training(Numbered(3), drop_last=False, world_size=4)
    assert caught.value.hint


@pytest.mark.parametrize("workers", [0, 2])
def test_an_abandoned_epoch_leaves_nothing_to_the_next(workers: int) -> None:
    batches = training(workers=workers)
    abandoned = batches.epoch(0)
    next(abandoned)
    children = multiprocessing.active_children()
    assert equal(list(batches.epoch(1)), epoch_of(training(), 1))
    assert list(abandoned) == []
    assert multiprocessing.active_children() == children
    batches.close()
    assert multiprocessing.active_children() == []
    assert equal(epoch_of(batches, 1), epoch_of(training(), 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_callers_generators_are_left_alone(workers: int) -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    epoch_of(training(workers=workers), 0)
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_a_data_set_smaller_than_one_joined_batch() -> None:
    with pytest.raises(UsageError, match=r"50 samples, too few for one batch of 64 \(2 processes x 32\)") as caught:
        training(batch_size=32, world_size=2)
    assert "batch_size" in str(caught.value.hint)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_counts_each_sample_once(world_size: int, workers: int) -> None:
    seen = []
    for rank in range(world_size):
        batches = EvaluationBatches(
            Numbered(11), EVALUATION, batch_size=2, workers=workers, rank=rank, world_size=world_size
        )
        parts = [labels for _, labels, _ in batches]
        assert [labels.tolist() for _, labels, _ in batches] == [labels.tolist() for labels in parts]
        batches.close()
        seen += torch.cat(parts).tolist()
    assert seen == list(range(11))


def test_a_rank_without_samples() -> None:
    batches = EvaluationBatches(Numbered(1), EVALUATION, batch_size=2, workers=0, rank=0, world_size=2)
    assert list(batches) == []


@pytest.fixture
def damaged(tmp_path: Path) -> ImageSource:
    for number in range(12):
        path = tmp_path / "a" / f"{number:02}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.effect_noise((64, 64), 50).save(path)
    path = tmp_path / "a" / "07.jpg"
    path.write_bytes(path.read_bytes()[:800])
    return open_source("folder", tmp_path, "")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_picture_is_named(damaged: ImageSource, workers: int) -> None:
    batches = EvaluationBatches(damaged, EVALUATION, batch_size=2, workers=workers)
    iterator = iter(batches)
    assert [len(labels) for _, labels, _ in itertools.islice(iterator, 3)] == [2, 2, 2]
    with pytest.raises(DataError, match=r"can't use .*07\.jpg: .*truncated") as caught:
        next(iterator)
    assert "Traceback" not in caught.value.message
    assert caught.value.hint
    batches.close()
    assert multiprocessing.active_children() == []  # although the exception still holds its frames


# Images that can't be used


class Gaps(Numbered):
    """Numbered images of which some can't be used, each for a reason of its own."""

    reasons = {3: "truncated", 4: "no image", 11: "its label 99 is not one", 17: "not finite"}  # noqa: RUF012

    def read(self, index: int) -> tuple[Image.Image, int]:
        if index in (3, 4):
            raise OSError(self.reasons[index])
        image, label = super().read(index)
        return (image, 99) if index == 11 else (image, label)


def with_an_infinite_picture(image: Image.Image) -> Tensor:
    return TRAINING(image) + (float("inf") if image.getpixel((0, 0)) == (17, 34, 238) else 0.0)


@pytest.mark.parametrize("workers", [0, 2])
def test_pictures_that_can_not_be_used_are_replaced_in_training(workers: int) -> None:
    def run(source: Numbered, start: int = 0) -> tuple[Pairs, dict[str, str]]:
        batches = TrainingBatches(
            source, with_an_infinite_picture, batch_size=4, workers=workers, seed=3, unreadable="skip"
        )
        return epoch_of(batches, 1, start), batches.unusable

    whole, unusable = run(Gaps(50))
    untouched, none = run(Numbered(50))
    assert set(none) == {"numbered 17"}
    assert unusable.keys() == {f"numbered {index}" for index in Gaps.reasons}
    for index, words in Gaps.reasons.items():
        assert words in unusable[f"numbered {index}"]
    own = {int(s): image for batch in untouched for image, s in zip(batch.inputs[IMAGES], batch.samples, strict=True)}
    for found, expected in zip(whole, untouched, strict=True):
        assert found.samples.tolist() == found.targets.tolist()
        columns = (column for batch in (found, expected) for column in (batch.inputs[IMAGES], batch.samples))
        pairs = zip(*columns, strict=True)
        for image, sample, original, wanted in pairs:
            takes_its_place = {3: 5, 4: 5, 11: 12}.get(int(wanted), int(wanted))
            assert sample == takes_its_place
            assert torch.equal(image, original) == (sample == wanted)
            assert torch.equal(image, own[int(sample)])  # as where it is drawn itself
    assert equal(run(Gaps(50), start=5)[0], whole[5:])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 3])
def test_pictures_that_can_not_be_used_are_left_out_of_an_evaluation(world_size: int, workers: int) -> None:
    seen, unusable = [], {}
    for rank in range(world_size):
        batches = EvaluationBatches(
            Gaps(13),
            EVALUATION,
            batch_size=2,
            workers=workers,
            rank=rank,
            world_size=world_size,
            unreadable="skip",
        )
        seen += [label for _, labels, _ in batches for label in labels.tolist()]
        unusable |= batches.unusable
        batches.close()
    assert seen == [0, 1, 2, 5, 6, 7, 8, 9, 10, 12]
    assert unusable.keys() == {"numbered 3", "numbered 4", "numbered 11"}


def test_a_source_without_a_single_usable_picture() -> None:
    class Nothing(Numbered):
        def read(self, index: int) -> tuple[Image.Image, int]:
            raise OSError("damaged")

    batches = TrainingBatches(Nothing(5), TRAINING, batch_size=4, workers=0, seed=3, unreadable="skip")
    with pytest.raises(DataError, match=r"can't use numbered \d: damaged"):
        next(batches.epoch(0))


def test_a_picture_that_is_not_finite_is_named() -> None:
    batches = TrainingBatches(Numbered(18), with_an_infinite_picture, batch_size=18, workers=0, seed=3)
    with pytest.raises(DataError, match=r"can't use numbered 17: .* not finite: it has NaN or infinity"):
        next(batches.epoch(0))


@pytest.mark.parametrize(("samples", "parts"), [(11, 2), (9, 2), (1, 1), (12, 2)])
def test_every_rank_is_called_after_as_many_parts(samples: int, parts: int) -> None:
    for rank in range(3):
        calls: list[int] = []
        batches = EvaluationBatches(Numbered(samples), EVALUATION, batch_size=2, workers=0, rank=rank, world_size=3)
        list(batches.run(lambda calls=calls: calls.append(1)))  # type: ignore[misc]
        assert len(calls) == parts


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker looks for its parent every few seconds")
def test_workers_end_with_a_process_that_is_killed() -> None:
    reader, writer = os.pipe()

    def parent() -> None:
        batches = iter(EvaluationBatches(Numbered(40), EVALUATION, batch_size=1, workers=2))
        next(batches)
        os.write(writer, " ".join(str(child.pid) for child in multiprocessing.active_children()).encode())
        signal.pause()

    process = multiprocessing.get_context("fork").Process(target=parent)
    process.start()
    workers = [int(pid) for pid in os.read(reader, 100).split()]
    process.kill()
    process.join()
    assert len(workers) == 2
    for _ in range(100):
        if not any(is_running(pid) for pid in workers):
            return
        time.sleep(0.02)
    pytest.fail("workers outlived their parent by two seconds")


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_label_outside_the_classes_is_named() -> None:
    source = Numbered(8)
    source.classes = source.classes[:5]
    with pytest.raises(DataError, match="numbered 5: its label 5 is not one of the 5 classes"):
        list(EvaluationBatches(source, EVALUATION, batch_size=4, workers=0))


class KillsItsWorker(Numbered):
    def read(self, index: int) -> tuple[Image.Image, int]:
        if index == 0:
            signal.raise_signal(signal.SIGKILL)
        return super().read(index)


def test_a_worker_that_dies() -> None:
    batches = EvaluationBatches(KillsItsWorker(12), EVALUATION, batch_size=2, workers=1)
    with pytest.raises(SurgeonError, match="a loader worker died") as caught:
        list(batches)
    assert "memory" in str(caught.value.hint)
    batches.close()


def test_a_worker_that_dies_while_its_batch_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's thread that pins batches ends with what it could not take, and the loader says no more than that."""

    def start(feed: Any) -> Any:
        raise RuntimeError("Pin memory thread exited unexpectedly")

    monkeypatch.setattr(Feed, "_start", start)
    with pytest.raises(SurgeonError, match="a loader worker died: Pin memory thread"):
        list(EvaluationBatches(Numbered(12), EVALUATION, batch_size=2, workers=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_transform_is_not_taken_for_a_dead_worker_or_damaged_data(workers: int) -> None:
    def broken(image: Image.Image) -> Tensor:
        raise RuntimeError("shapes do not match")

    batches = EvaluationBatches(Numbered(2), broken, batch_size=2, workers=workers)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        list(batches)
    batches.close()


class ReportsItsSignals(Numbered):
    def read(self, index: int) -> tuple[Image.Image, int]:
        ignores = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        ends = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        open_to_both = not signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return super().read(0)[0], int(ignores and ends and open_to_both)


def test_workers_do_not_run_the_parents_signal_handlers() -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        batches = EvaluationBatches(ReportsItsSignals(4), EVALUATION, batch_size=4, workers=1)
        assert [labels.tolist() for _, labels, _ in batches] == [[1, 1, 1, 1]]
        batches.close()
    finally:
        signal.signal(signal.SIGTERM, before)


class FailsInAThread(Numbered):
    """A worker of it fails as its thread that hands over tensors does."""

    def __init__(self, error: Exception) -> None:
        super().__init__(1)
        self.error = error

    def read(self, index: int) -> tuple[Image.Image, int]:
        sys.excepthook(type(self.error), self.error, None)
        return super().read(index)


@pytest.mark.parametrize(
    ("error", "said"),
    [(ConnectionResetError(), ""), (EOFError(), ""), (ValueError("a bug"), "ValueError: a bug\n")],
    ids=["reset", "closed", "a bug"],
)
def test_workers_are_silent_when_the_training_process_hangs_up(
    capfd: pytest.CaptureFixture[str], error: Exception, said: str
) -> None:
    batches = EvaluationBatches(FailsInAThread(error), EVALUATION, batch_size=1, workers=1)
    assert len(list(batches)) == 1
    batches.close()
    assert capfd.readouterr().err == said


class StoppedError(BaseException):
    pass


def test_a_signal_while_workers_start_comes_when_they_have() -> None:
    """Raised within a fork, it would be dropped."""
    due = [signal.SIGTERM]

    def stop(*_: object) -> None:
        raise StoppedError

    os.register_at_fork(after_in_parent=lambda: signal.raise_signal(due.pop()) if due else None)
    before = signal.signal(signal.SIGTERM, stop)
    batches = EvaluationBatches(Numbered(4), EVALUATION, batch_size=4, workers=2)
    try:
        with pytest.raises(StoppedError):
            list(batches)
        assert len(multiprocessing.active_children()) == 2
    finally:
        signal.signal(signal.SIGTERM, before)
        batches.close()
    assert multiprocessing.active_children() == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a worker looks for its parent every few seconds")
def test_a_worker_whose_parent_was_killed_before_it_could_ask_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        monkeypatch.setattr("os.getppid", lambda: 1)
        start_worker(0)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 1
