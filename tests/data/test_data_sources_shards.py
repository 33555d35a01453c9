"""WebDataset shards: the batches are those of the same images in folders, and what can't be used is named."""

import json
import multiprocessing
import pickle
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_runs import in_one
from tiny_shards import File, make_same_folder, make_shards, picture, sample, write_tar
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.data import DataLoader, Dataset

from spgsurgeon.data.loading.loader import EvaluationBatches, TrainingBatches
from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.data.sources import shards as shard_source
from spgsurgeon.data.sources.class_names import with_classes
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.shards import PICTURES, open_shards
from spgsurgeon.data.sources.source import ImageSource, check_same_classes
from spgsurgeon.data.transforms.augmentation import Augmentation, evaluation_transform, training_transform
from spgsurgeon.errors import DamagedFileError, DataError, SurgeonError, UsageError
from spgsurgeon.models.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(input_size=(3, 16, 16))
TRAINING = training_transform(PREPROCESSING, Augmentation(policy="trivialaugment-wide", erase=0.5))
EVALUATION = evaluation_transform(PREPROCESSING)
Batches = list[Batch]


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shards(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_same_folder(tmp_path_factory.mktemp("folder"))


def one_shard(root: Path, files: list[File], form: int = tarfile.USTAR_FORMAT) -> ImageSource:
    write_tar(root / "train-0.tar", files, form)
    return open_shards(root, "train")


def epoch_of(source: ImageSource, epoch: int = 0, start: int = 0, workers: int = 0, **share: int) -> Batches:
    batches = TrainingBatches(source, TRAINING, workers=workers, **{"batch_size": 2, "seed": 3, **share})
    result = list(batches.epoch(epoch, start))
    batches.close()
    return result


def equal(left: Batches, right: Batches) -> bool:
    return len(left) == len(right) and all(
        all(map(torch.equal, tree_leaves(one), tree_leaves(other))) for one, other in zip(left, right, strict=True)
    )


# What is read


def test_samples_lie_shard_by_shard_in_the_order_of_their_places(tmp_path: Path) -> None:
    write_tar(tmp_path / "b.tar", sample("z", 2, picture(0)) + sample("a", 0, picture(1)))
    write_tar(tmp_path / "a.tar", sample("m", 1, picture(2)))
    source = open_shards(tmp_path, "b.tar::a.tar")
    assert [source.read(index)[1] for index in range(len(source))] == [2, 0, 1]
    assert [source.describe(index) for index in range(len(source))] == [
        f"z.jpg in {tmp_path / 'b.tar'}",
        f"a.jpg in {tmp_path / 'b.tar'}",
        f"m.jpg in {tmp_path / 'a.tar'}",
    ]
    assert source.name == f"{tmp_path} (b.tar::a.tar)"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_kinds_of_pictures(tmp_path: Path, form: int) -> None:
    kinds = [kind for kind in ("jpg", "jpeg", "png", "webp", "bmp", "tiff", "PNG", "JPEG") if kind.lower() in PICTURES]
    files = [file for n, kind in enumerate(kinds) for file in sample(f"a{n}", n, picture(n, kind.lower()), kind)]
    source = one_shard(tmp_path, files, form)
    assert len(source) == len(kinds) == 8
    for number in range(len(kinds)):
        image, label = source.read(number)
        assert (image.mode, image.size, label) == ("RGB", (24, 24), number)
    lossless = kinds.index("png")
    pixels = np.random.default_rng(lossless).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(source.read(lossless)[0]), pixels)


def test_pictures_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 7).save(tmp_path / "grey.png")
    source = one_shard(tmp_path, sample("a", 0, (tmp_path / "grey.png").read_bytes(), "png"))
    assert source.read(0)[0].getpixel((0, 0)) == (7, 7, 7)


def test_a_key_ends_at_the_first_dot_and_has_its_folder(tmp_path: Path) -> None:
    jpg = picture(0)
    files = [
        ("README", b"no ending, no sample"),
        ("./._a.jpg", b"what macOS adds"),
        ("./v1.0/a.jpg", jpg),
        ("./v1.0/a.cls", b" 1\n"),
        ("./v1.0/a.seg.png", b"of the same sample, no image"),
        ("./v1.0/a.json", b"{}"),
        ("v2.0/a.cls", b"0"),
        ("v2.0/a.jpg", jpg),
    ]
    source = one_shard(tmp_path, files)
    assert [source.read(index)[1] for index in range(len(source))] == [1, 0]


def test_info_with_lengths_that_are_right(shards: Path, tmp_path: Path) -> None:
    for path in shards.iterdir():
        (tmp_path / path.name).symlink_to(path)
    said = {"filenames": [f"train-{n:03}.tar" for n in (2, 0)], "shard_lengths": [4, 4], "num_samples": 8}
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"validation": said}, "class_names": ["a", "b", "c"]}))
    source = open_source("wds", tmp_path, "validation")
    assert (len(source), source.classes) == (8, ("a", "b", "c"))
    assert [source.read(index)[1] for index in range(8)] == [2, 2, 2, 2, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"shard_lengths": [4, 5]}, "train-001.tar holds 4 samples, and is said to hold 5"),
        ({"num_samples": 9}, "hold 8 samples, and are said to hold 9"),
    ],
)
def test_info_with_lengths_that_are_wrong(shards: Path, tmp_path: Path, said: dict[str, Any], words: str) -> None:
    filenames = [f"train-{n:03}.tar" for n in (0, 1)]
    for name in filenames:
        (tmp_path / name).symlink_to(shards / name)
    (tmp_path / "_info.json").write_text(json.dumps({"splits": {"train": {"filenames": filenames} | said}}))
    with pytest.raises(DataError, match=words):
        open_shards(tmp_path, "train")
    with pytest.raises(DataError, match="hold 12 samples, and are said to hold 13"):
        open_shards(shards, "train-{000..002}.tar|13")


# Classes


def test_class_names(shards: Path, tmp_path: Path) -> None:
    assert open_shards(shards, "train").classes == ("0", "1", "2")
    assert open_shards(shards, "train", classes=5).classes == ("0", "1", "2", "3", "4")
    assert open_shards(shards, "train", classes=["x", "y", "z"]).classes == ("x", "y", "z")
    write_tar(tmp_path / "train-0.tar", sample("a", 1, picture(0)))
    (tmp_path / "classes.txt").write_text("cat\ndog\nowl\n")
    assert open_shards(tmp_path, "train").classes == ("cat", "dog", "owl")
    with pytest.raises(DataError, match=r"a\.jpg in .*train-0\.tar has the label 1, which is none of the 1 classes"):
        open_shards(tmp_path, "train", classes=1)


def test_counted_classes_are_counted_over_both_splits(tmp_path: Path) -> None:
    write_tar(tmp_path / "train-0.tar", sample("a", 4, picture(0)))
    write_tar(tmp_path / "val-0.tar", sample("a", 2, picture(0)))
    train, val = (open_shards(tmp_path, split) for split in ("train", "val"))
    with pytest.raises(UsageError, match="differ"):
        check_same_classes(train, val)
    assert with_classes(val, 5).classes == train.classes
    assert with_classes(val, 5).read(0)[1] == 2
    assert with_classes(train, 3) is train
    named = open_shards(tmp_path, "val", classes=3)
    assert with_classes(named, 5) is named
    assert with_classes(open_source("digits", None, "val"), 20).classes == tuple("0123456789")


# The same batches as from folders


def test_batches_are_those_of_the_same_pictures_in_folders(shards: Path, folder: Path) -> None:
    source, same = open_source("wds", shards, "train"), open_source("folder", folder, "train")
    assert (source.classes, len(source)) == (same.classes, len(same))
    assert equal(epoch_of(source, epoch=1), epoch_of(same, epoch=1))
    assert not equal(epoch_of(source, epoch=1), epoch_of(same, epoch=0))


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_within_an_epoch_gives_the_folders_tail(shards: Path, folder: Path, workers: int) -> None:
    whole = epoch_of(open_source("folder", folder, "train"), epoch=2)
    source = open_shards(shards, "train")
    source.read(0)  # a shard that is open when the workers start
    assert equal(epoch_of(source, epoch=2, start=2, workers=workers), whole[2:])
    assert equal(epoch_of(source, epoch=2, workers=workers), whole)


def test_ranks_share_out_the_joined_batch(shards: Path) -> None:
    source = open_shards(shards, "train")
    ranks = [epoch_of(source, batch_size=1, rank=rank, world_size=2) for rank in range(2)]
    together = [tree_map(in_one, *step) for step in zip(*ranks, strict=True)]
    assert equal(together, epoch_of(source))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_counts_each_sample_once(shards: Path, folder: Path, workers: int) -> None:
    seen: Batches = []
    for rank in range(5):
        batches = EvaluationBatches(
            open_shards(shards, "val"), EVALUATION, batch_size=2, workers=workers, rank=rank, world_size=5
        )
        seen += list(batches)
        batches.close()
    alone = list(EvaluationBatches(open_source("folder", folder, "val"), EVALUATION, batch_size=12, workers=0))
    assert equal([tree_map(in_one, *seen)], alone)


class Decoded(Dataset[Tensor]):
    """A source's images and labels as tensors, for a loader whose workers start from nothing."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        image, label = self.source.read(index)
        return torch.cat([torch.from_numpy(np.array(image)).flatten(), torch.tensor([label])])


@pytest.mark.slow
def test_spawned_workers_read_the_same(shards: Path) -> None:
    source = open_shards(shards, "train")
    expected = [Decoded(source)[index] for index in range(len(source))]
    loader = DataLoader(Decoded(source), batch_size=3, num_workers=1, multiprocessing_context="spawn")
    assert torch.equal(torch.cat(list(loader)), torch.stack(expected))
    assert multiprocessing.active_children() == []


def test_what_is_pickled_is_small_and_opens_its_own_files(shards: Path) -> None:
    source = open_shards(shards, "train")
    source.read(0)
    data = pickle.dumps(source)
    assert len(data) < 2500  # 24 bytes a sample, and the paths
    assert np.array_equal(np.asarray(pickle.loads(data).read(5)[0]), np.asarray(source.read(5)[0]))


def test_few_shards_stay_open(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_source, "_KEPT_OPEN", 2)
    opened: list[str] = []
    closed: list[int] = []
    real_open, real_close = shard_source.os.open, shard_source.os.close
    source = open_shards(shards, "train")
    monkeypatch.setattr(shard_source.os, "open", lambda path, *rest: opened.append(path.name) or real_open(path, *rest))
    monkeypatch.setattr(shard_source.os, "close", lambda number: closed.append(number) or real_close(number))
    for index in (0, 1, 4, 0, 8, 1, 4):
        source.read(index)
    assert opened == ["train-000.tar", "train-001.tar", "train-002.tar", "train-001.tar"]
    assert len(closed) == 2
    del source
    assert len(closed) == 4


def test_a_read_that_comes_in_parts(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_shards(shards, "train")
    whole = np.asarray(source.read(5)[0])
    pread = shard_source.os.pread
    monkeypatch.setattr(shard_source.os, "pread", lambda number, size, offset: pread(number, min(size, 100), offset))
    assert np.array_equal(np.asarray(source.read(5)[0]), whole)


# What is refused

JPG = picture(0)


def refusal(root: Path, files: list[File]) -> SurgeonError:
    with pytest.raises(SurgeonError) as caught:
        one_shard(root, files)
    return caught.value


@pytest.mark.parametrize(
    ("files", "words", "hint"),
    [
        ([("a.cls", b"1"), *sample("b", 0, JPG)], "'a' has no image, only 'cls'", "lie next to each other"),
        ([("a.jpg", JPG), *sample("b", 0, JPG)], "'a' has no label, only 'jpg'", "KEY.cls"),
        ([("a.jpg", JPG), ("a.json", b"{}")], "'a' has no label, only 'jpg', 'json'", "a class number as text"),
        ([("a.1.jpg", JPG), ("a.1.cls", b"1")], "'a' has no image, only '1.jpg', '1.cls'", "at the first dot"),
        ([("a.jpg", JPG), ("b.jpg", JPG), ("a.cls", b"1"), ("b.cls", b"1")], "'a' has no label", "--sort=name"),
        ([*sample("a", 0, JPG), *sample("b", 0, JPG), *sample("a", 0, JPG)], "'a' is there twice", "--sort=name"),
        ([("a.jpg", JPG), ("a.png", JPG), ("a.cls", b"0")], "'a' has several images: 'jpg', 'png'", ""),
        ([*sample("a", 0, JPG), ("a.JPG", JPG)], "'a' has two files 'jpg'", ""),
        ([("a.jpg", JPG), ("a.cls", b"cat")], "label of the sample 'a' is 'cat', no class number", "from 0"),
        ([("a.jpg", JPG), ("a.cls", b"-1")], "label of the sample 'a' is '-1', no class number", "from 0"),
        ([("a.jpg", JPG), ("a.cls", b"1.0")], "is '1.0', no class number", ""),
        ([("a.jpg", JPG), ("a.cls", "²".encode())], "no class number", ""),
        ([("a.jpg", JPG), ("a.cls", b"")], "is '', no class number", ""),
        ([("a.jpg", JPG), ("a.cls", b"1048576")], "label of the sample 'a' is beyond 1,048,576 classes", ""),
        ([("a.jpg", JPG), ("a.cls", b"0" * 40)], "label of the sample 'a' is beyond 1,048,576 classes", ""),
    ],
)
def test_samples_that_can_not_be_used(tmp_path: Path, files: list[File], words: str, hint: str) -> None:
    error = refusal(tmp_path, files)
    assert isinstance(error, DataError)
    assert words in error.message
    assert str(tmp_path / "train-0.tar") in error.message
    assert hint in str(error.hint)


def test_shards_without_samples(tmp_path: Path, shards: Path) -> None:
    error = refusal(tmp_path, [("README", b"")])
    assert isinstance(error, UsageError)
    assert "hold no sample" in error.message
    (tmp_path / "train-1.tar").symlink_to(shards / "train-000.tar")
    assert len(open_shards(tmp_path, "train")) == 4  # an empty one among others is none the worse


def test_a_damaged_shard_is_named(shards: Path, tmp_path: Path) -> None:
    content = (shards / "train-000.tar").read_bytes()
    (tmp_path / "train-0.tar").symlink_to(shards / "train-001.tar")
    (tmp_path / "train-1.tar").write_bytes(content[:5000])
    with pytest.raises(DamagedFileError, match=r"train-1\.tar is damaged"):
        open_shards(tmp_path, "train")


@pytest.mark.parametrize("path", ["s3://bucket/shards", "https://host/shards", "pipe:aws s3 cp"])
def test_streams_are_refused(path: str) -> None:
    with pytest.raises(UsageError, match="could not resume exactly") as caught:
        open_source("wds", path, "train")
    assert "mount the bucket" in str(caught.value.hint)


@pytest.mark.parametrize(("path", "words"), [(None, "needs a path"), ("nowhere", "does not exist")])
def test_a_path_is_needed(path: str | None, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        open_source("wds", path, "train")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_picture_is_named(tmp_path: Path, workers: int) -> None:
    source = one_shard(tmp_path, sample("good", 0, JPG) + sample("bad", 1, b"no image") + sample("cut", 1, JPG[:400]))
    for first, words in (
        (1, r"bad\.jpg in .*train-0\.tar: its content is not an image"),
        (2, r"cut\.jpg in .*[Tt]runcated"),
    ):
        batches = EvaluationBatches(source, EVALUATION, batch_size=1, workers=workers, rank=first, world_size=3)
        with pytest.raises(DataError, match=f"can't use {words}"):
            list(batches)
        batches.close()


def test_a_shard_that_shrinks_while_it_is_used(tmp_path: Path) -> None:
    source = one_shard(tmp_path, sample("a", 0, JPG) + sample("b", 0, JPG))
    path = tmp_path / "train-0.tar"
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(DataError, match=rf"can't use the image at byte \d+ in {path}: the shard has become shorter"):
        list(EvaluationBatches(source, EVALUATION, batch_size=1, workers=0, rank=1, world_size=2))
