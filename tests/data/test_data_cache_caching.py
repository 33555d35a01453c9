"""Images that stay decoded: the same batches as without, wherever they stay, and who shares them."""

from __future__ import annotations

import errno
import itertools
import multiprocessing
import os
import pickle
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image
from pretended_cuda import CUDA, PretendedCUDA, needs_cuda_build
from tiny_runs import EVERYTHING, CrashError, Noise, Watcher, crash_at, tiny_retraining, train, weights_hash
from tiny_shards import make_same_folder, make_shards, picture, sample, write_tar
from torch.utils._pytree import tree_leaves, tree_map

from spgsurgeon.data.cache import decoded_images as decoded_pictures
from spgsurgeon.data.cache.caching import Cache
from spgsurgeon.data.cache.decoded_images import DecodedPictures, decode, estimate
from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import ImageSource
from spgsurgeon.data.transforms.augmentation import (
    Augmentation,
    StagedTransform,
    evaluation_transform,
    training_transform,
)
from spgsurgeon.data.transforms.batched import BatchedAugmentation
from spgsurgeon.data.transforms.resampling import _pillow_turns
from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.models.inputs import IMAGES
from spgsurgeon.models.preprocessing import Preprocessing
from spgsurgeon.training.epoch import meter as epoch_meter

CPU = torch.device("cpu")
MEMORY, DEVICE = Cache(), Cache(CPU)
PREPROCESSING = Preprocessing(input_size=(3, 16, 12))
PAD = training_transform(PREPROCESSING, Augmentation(crop="pad", erase=0.5))
EVALUATION = evaluation_transform(PREPROCESSING)
KINDS = pytest.mark.parametrize(("cache", "workers"), [(MEMORY, 0), (MEMORY, 2), (DEVICE, 0)])


class Counted:
    """Images of several sizes that count how often each was read; those in `damaged` can't be."""

    name = "counted"

    def __init__(self, count: int = 30, damaged: dict[int, str] | None = None) -> None:
        self.count, self.damaged, self.reads = count, damaged or {}, [0] * count
        self.classes = tuple(str(number) for number in range(count))

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> tuple[Image.Image, int]:
        self.reads[index] += 1
        if index in self.damaged:
            raise OSError(self.damaged[index])
        noise = np.random.default_rng(index).integers(0, 256, (17, 14 + index % 3, 3), dtype=np.uint8)
        return Image.fromarray(noise), 99 if index == 11 and self.damaged else index

    def describe(self, index: int) -> str:
        return f"counted {index}"

    def fingerprint(self) -> list[str]:
        return [str(self.count)]


class OfOneSize(Counted):
    def read(self, index: int) -> tuple[Image.Image, int]:
        image, label = super().read(index)
        return image.crop((0, 0, 14, 17)), label


def batches(source: ImageSource, cache: Cache | None, workers: int = 0, **options: object) -> TrainingBatches:
    settings = {"transform": PAD, "batch_size": 4, "seed": 3} | options
    return TrainingBatches(source, workers=workers, cache=cache, **settings)  # type: ignore[arg-type]


def epochs(loaded: TrainingBatches) -> list[Batch]:
    try:
        return [*loaded.epoch(0), *loaded.epoch(1, start=2)]
    finally:
        loaded.close()


def equal(left: list[Batch], right: list[Batch]) -> bool:
    return len(left) == len(right) and all(
        all(map(torch.equal, tree_leaves(one), tree_leaves(other))) for one, other in zip(left, right, strict=True)
    )


# The same numbers


@KINDS
@pytest.mark.parametrize("rank", [0, 1])
def test_training_batches_are_those_without_a_cache(cache: Cache, workers: int, rank: int) -> None:
    share = {"rank": rank, "world_size": 2, "batch_size": 3}
    plain = epochs(batches(Counted(), None, **share))
    source = Counted()
    assert equal(epochs(batches(source, cache, workers, **share)), plain)
    assert plain[0].inputs[IMAGES].is_contiguous()
    if not workers:  # else it is workers that count
        assert source.reads == [1] * 30


@pytest.mark.parametrize("erase", [0.0, 0.7])
@pytest.mark.parametrize("flip", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("crop", ["pad", "resize"])
def test_batches_are_augmented_as_single_pictures_are(crop: str, flip: float, erase: float) -> None:
    transform = training_transform(PREPROCESSING, Augmentation(crop=crop, flip=flip, erase=erase))
    plain = epochs(batches(Counted(), None, transform=transform))
    assert equal(epochs(batches(Counted(), DEVICE, transform=transform)), plain)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_random_resized_crops_are_those_of_single_pictures(interpolation: str) -> None:
    preprocessing = replace(PREPROCESSING, interpolation=interpolation)
    transform = training_transform(preprocessing, Augmentation(erase=0.5))
    plain = epochs(batches(OfOneSize(), None, transform=transform))
    assert equal(epochs(batches(OfOneSize(), DEVICE, transform=transform)), plain)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("crop", ["pad", "resize", "random-resized"])
def test_batches_made_on_a_gpu_are_those_of_the_cpu(crop: str) -> None:
    transform = training_transform(PREPROCESSING, Augmentation(crop=crop, erase=0.5))
    found = epochs(batches(OfOneSize(), Cache(torch.device("cuda")), transform=transform))
    assert {tensor.device.type for batch in found for tensor in tree_leaves(batch)} == {"cuda"}
    plain = epochs(batches(OfOneSize(), None, transform=transform))
    assert equal([tree_map(torch.Tensor.cpu, batch) for batch in found], plain)


@needs_cuda_build
@pytest.mark.parametrize("crop", ["pad", "resize", "random-resized"])
def test_batches_are_made_on_cuda_without_waiting_for_it(crop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    transform = training_transform(PREPROCESSING, Augmentation(crop=crop, erase=0.5))
    augmentation = BatchedAugmentation(transform, (16, 12), CUDA)
    _pillow_turns()  # looks at images
    with PretendedCUDA(monkeypatch) as cuda:
        pixels = torch.zeros(9, 16, 12, 3, dtype=torch.uint8, device=CUDA)
        images = augmentation(pixels, torch.arange(4, device=CUDA), range(4))
        assert (images.device, images.shape) == (CUDA, (4, 3, 16, 12))
        assert cuda.waits == []


def test_random_sizes_and_policies_stay_as_they_are_in_memory() -> None:
    transform = training_transform(PREPROCESSING, Augmentation(policy="trivialaugment-wide"))
    plain = epochs(batches(Counted(), None, transform=transform))
    assert equal(epochs(batches(Counted(), MEMORY, transform=transform)), plain)


@KINDS
def test_the_callers_generator_is_left_alone(cache: Cache, workers: int) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    epochs(batches(Counted(), cache, workers))
    assert torch.equal(torch.rand(3), expected)


@KINDS
@pytest.mark.parametrize("rank", [0, 1])
def test_evaluation_batches_are_those_without_a_cache(cache: Cache, workers: int, rank: int) -> None:
    def run(cache: Cache | None) -> list[Batch]:
        loaded = EvaluationBatches(
            Counted(11), EVALUATION, batch_size=3, workers=workers, rank=rank, world_size=2, cache=cache
        )
        found = [*loaded, *loaded]
        loaded.close()
        return found

    assert equal(run(cache), run(None))


DAMAGED = {3: "truncated", 4: "no image", 29: "gone"}


@KINDS
def test_pictures_that_can_not_be_used_are_passed_over_as_without_a_cache(cache: Cache, workers: int) -> None:
    def run(cache: Cache | None) -> tuple[list[Batch], dict[str, str], list[Batch], dict[str, str]]:
        training = batches(Counted(damaged=DAMAGED), cache, workers, unreadable="skip")
        evaluation = EvaluationBatches(
            Counted(damaged=DAMAGED), EVALUATION, batch_size=2, workers=workers, unreadable="skip", cache=cache
        )
        found = epochs(training), training.unusable, list(evaluation), evaluation.unusable
        evaluation.close()
        return found

    trained, unusable, scored, left_out = run(cache)
    plain = run(None)
    assert equal(trained, plain[0])
    assert equal(scored, plain[2])
    assert (unusable, left_out) == (plain[1], plain[3])
    assert left_out.keys() == {"counted 3", "counted 4", "counted 29", "counted 11"}


@KINDS
def test_a_picture_that_can_not_be_used_ends_a_run_where_it_would_without_a_cache(cache: Cache, workers: int) -> None:
    loaded = EvaluationBatches(
        Counted(damaged={7: "truncated"}), EVALUATION, batch_size=2, workers=workers, cache=cache
    )
    iterator = iter(loaded)
    assert [len(batch.targets) for batch in itertools.islice(iterator, 3)] == [2, 2, 2]
    with pytest.raises(DataError, match="can't use counted 7: truncated"):
        next(iterator)
    loaded.close()


@pytest.mark.parametrize("first", [None, MEMORY, DEVICE], ids=["none", "memory", "device"])
@pytest.mark.parametrize("then", [None, MEMORY, DEVICE], ids=["none", "memory", "device"])
def test_a_run_goes_on_with_another_cache(first: Cache | None, then: Cache | None, tmp_path: Path) -> None:
    whole = weights_hash(train(tiny_retraining(EVERYTHING)))
    with pytest.raises(CrashError):
        train(tiny_retraining(EVERYTHING, path=tmp_path / "run", cache=first, progress=crash_at(8)))
    resumed = train(tiny_retraining(EVERYTHING, path=tmp_path / "run", cache=then), resume=True)
    assert weights_hash(resumed) == whole


class TakesAnHour(Noise):
    """Images that take an hour each to read, on a clock of their own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(24)
        self.now = 0.0
        monkeypatch.setattr(epoch_meter, "time", SimpleNamespace(perf_counter=self.tick))

    def tick(self) -> float:
        self.now += 1e-3
        return self.now

    def read(self, index: int) -> tuple[Image.Image, int]:
        self.now += 3600
        return super().read(index)


@pytest.mark.parametrize(("cache", "hours"), [(None, 24), (MEMORY, 0), (DEVICE, 0)], ids=["none", "memory", "device"])
def test_decoding_once_is_no_training_time(cache: Cache | None, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    watcher = Watcher()
    train(tiny_retraining(source=TakesAnHour(monkeypatch), cache=cache, progress=watcher))
    for line in watcher.lines:
        assert [round(line[key] / 3600) for key in ("seconds", "data_seconds")] == [hours, hours]
        assert (line["images_per_second"] > 1) == (hours == 0)


# What can't be done on a device


@pytest.mark.parametrize(
    ("transform", "words"),
    [
        (training_transform(PREPROCESSING, Augmentation(crop="pad", policy="augmix")), "AugMix"),
        (training_transform(replace(PREPROCESSING, interpolation="lanczos"), Augmentation()), "lanczos resizing"),
        (
            training_transform(
                Preprocessing(input_size=(1, 8, 8), mean=(0.5,), std=(0.5,)), Augmentation(crop="resize")
            ),
            "the conversion to grey",
        ),
    ],
)
def test_what_is_not_done_in_batches(transform: StagedTransform, words: str) -> None:
    with pytest.raises(UsageError, match=f"data.cache=device augments in batches, .*{words} is not") as caught:
        next(batches(Counted(), DEVICE, transform=transform).epoch(0))
    assert "data.cache=memory" in str(caught.value.hint)


def test_pictures_of_several_sizes() -> None:
    transform = StagedTransform([], EVALUATION.steps)
    with pytest.raises(UsageError, match="those of counted have several: 14 x 17, 15 x 17, 16 x 17"):
        next(batches(Counted(), DEVICE, transform=transform).epoch(0))


# Who shares them


def test_shards_are_decoded_as_folders_are(tmp_path: Path) -> None:
    transform = StagedTransform([], PAD.steps)
    shards, same = make_shards(tmp_path / "shards"), make_same_folder(tmp_path / "folder")
    found, began = decoded_in(tmp_path / "decoded", open_source("wds", shards, "train"), transform)
    assert began
    assert pictures(found) == pictures(decode(open_source("folder", same, "train"), transform, workers=0))
    assert not decoded_in(tmp_path / "decoded", open_source("wds", shards, "train"), transform)[1]
    write_tar(shards / "train-000.tar", sample("a", 0, picture(99)))
    assert decoded_in(tmp_path / "decoded", open_source("wds", shards, "train"), transform)[1]


@pytest.fixture
def folder(tmp_path: Path) -> ImageSource:
    for number in range(6):
        path = tmp_path / "data" / "a" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8 + number, 8), (number, 0, 0)).save(path)
    return open_source("folder", tmp_path / "data", "")


class Listener(list[str]):
    def __call__(self, text: str) -> None:
        self.append(text)


def decoded_in(place: Path, source: ImageSource, transform: StagedTransform = PAD) -> tuple[DecodedPictures, bool]:
    """Return what is decoded into a folder, and whether it was now."""
    listener = Listener()
    found = decode(source, transform, workers=0, folder=place, say=listener)
    return found, bool(listener)


def pictures(decoded: DecodedPictures) -> list[tuple[bytes, int]]:
    found = [decoded.read(number) for number in range(len(decoded.index))]
    return [(one[0].tobytes(), one[1]) for one in found if one]


def test_a_folder_is_decoded_once_while_its_files_stay_as_they_are(folder: ImageSource, tmp_path: Path) -> None:
    place = tmp_path / "decoded"
    first, began = decoded_in(place, folder)
    assert began
    again, began = decoded_in(place, open_source("folder", tmp_path / "data", ""))
    assert not began
    assert pictures(again) == pictures(first) == pictures(decode(folder, PAD, workers=2))
    assert decoded_in(place, folder, EVALUATION)[1]  # another size
    os.utime(tmp_path / "data" / "a" / "3.png", ns=(1, 1))
    assert decoded_in(place, folder)[1]
    Image.new("RGB", (8, 8)).save(tmp_path / "data" / "a" / "more.png")
    assert decoded_in(place, open_source("folder", tmp_path / "data", ""))[1]


@pytest.mark.parametrize("workers", [0, 2])
def test_many_pictures_are_found_again(workers: int) -> None:
    source = Counted(150)
    found = pictures(decode(source, StagedTransform([], PAD.steps), workers=workers))
    assert found == [(image.tobytes(), label) for image, label in map(source.read, range(150))]


@pytest.mark.parametrize("harm", [lambda path: os.truncate(path, 5), os.remove], ids=["cut off", "removed"])
@pytest.mark.parametrize("name", ["pixels", "index.npy"])
def test_what_is_damaged_is_decoded_anew(
    folder: ImageSource, tmp_path: Path, name: str, harm: Callable[[Path], None]
) -> None:
    place = tmp_path / "decoded"
    expected = pictures(decoded_in(place, folder)[0])
    (path,) = place.glob(f"*/{name}")
    harm(path)
    found, began = decoded_in(place, folder)
    assert began
    assert pictures(found) == expected


def below_a_file(place: Path) -> Path:
    place.touch()
    return place / "decoded"


def a_file(place: Path) -> Path:
    place.touch()
    return place


def locked_by_a_folder(place: Path) -> Path:
    decoded_in(place, Counted())
    (lock,) = place.glob("*.lock")
    lock.unlink()
    lock.mkdir()
    return place


@pytest.mark.parametrize("spoil", [below_a_file, a_file, locked_by_a_folder])
def test_a_folder_that_can_not_be_written_is_named(spoil: Callable[[Path], Path], tmp_path: Path) -> None:
    source, place = Counted(), spoil(tmp_path / "place")
    with pytest.raises(SurgeonError, match=f"^decoded images can't be kept in {place}: ") as caught:
        decode(source, PAD, workers=0, folder=place)
    assert "another folder" in str(caught.value.hint)
    assert source.reads == [0] * 30, "nothing was decoded for nothing"


def test_a_disk_that_fills_up_leaves_nothing_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(file: BinaryIO, *_: object) -> None:
        file.write(b"some of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(decoded_pictures, "_write", fill)
        with pytest.raises(SurgeonError, match="disk full"):
            decoded_in(tmp_path, Counted())
        with pytest.raises(SurgeonError, match="disk full"):
            decode(Counted(), PAD, workers=0)
    assert [path.suffix for path in tmp_path.iterdir()] == [".lock"]
    assert decoded_in(tmp_path, Counted())[1]


class DiesHalfWay(Counted):
    def read(self, index: int) -> tuple[Image.Image, int]:
        if index == 20:
            signal.raise_signal(signal.SIGKILL)
        return super().read(index)


def in_a_process(function: Callable[[], None]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=function)
    process.start()
    process.join()
    return process.exitcode


def test_a_process_that_is_killed_while_it_decodes_is_not_in_the_way(tmp_path: Path) -> None:
    assert in_a_process(lambda: [decoded_in(tmp_path, DiesHalfWay())]) == -signal.SIGKILL  # type: ignore[func-returns-value]
    assert list(tmp_path.glob(".*.tmp"))
    found, began = decoded_in(tmp_path, Counted())
    assert began
    assert pictures(found) == pictures(decode(Counted(), PAD, workers=0))
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.fixture
def two_processes(tmp_path: Path) -> list[str]:
    said = tmp_path / "said"

    def run() -> None:
        decode(
            Counted(), PAD, workers=0, folder=tmp_path / "decoded", say=lambda text: said.open("a").write(text + "\n")
        )

    together = [multiprocessing.get_context("fork").Process(target=run) for _ in range(2)]
    for process in together:
        process.start()
    for process in together:
        process.join()
        assert process.exitcode == 0
    return said.read_text().splitlines()


def test_of_two_processes_at_once_one_decodes(two_processes: list[str]) -> None:
    assert two_processes == ["decoding 30 images of counted, once"]


def test_what_is_pickled_for_a_worker_reads_the_same_file() -> None:
    decoded = decode(Counted(), PAD, workers=0)
    assert pictures(pickle.loads(pickle.dumps(decoded))) == pictures(decoded)


def test_an_estimate_of_some_pictures_is_near_the_whole() -> None:
    found = estimate(Counted(), PAD)
    assert (found.size, found.shapes) == (30 * 3 * 16 * 12, {(16, 12)})
    whole = estimate(Counted(damaged=DAMAGED), StagedTransform([], PAD.steps))
    assert whole.shapes == {(17, 14), (17, 15), (17, 16)}
    assert abs(whole.size / sum(3 * 17 * (14 + index % 3) for index in range(30)) - 1) < 0.05
