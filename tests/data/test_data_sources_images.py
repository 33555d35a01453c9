"""Data sources: the built-in digits, folders, timm's names, and what each of them refuses."""

import io
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from timm.data import ImageDataset

from spgsurgeon.data.sources.images import DIGIT_SPLITS, _TorchvisionSource
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import ImageSource, check_same_classes
from spgsurgeon.errors import DataError, UsageError
from spgsurgeon.runtime.seeds import derive_seed


def write_folder(root: Path, classes: str, images: int = 2) -> None:
    for name in classes:
        (root / name).mkdir(parents=True)
        for number in range(images):
            Image.new("RGB", (8, 6), (ord(name), number, 0)).save(root / name / f"{number}.png")


def test_seeds_are_stable_and_tell_their_parts_apart() -> None:
    assert derive_seed(0, "augment", 1, 2) == 9106351451934248613
    assert len({derive_seed(1, "2"), derive_seed("1", 2), derive_seed(12), derive_seed("12"), derive_seed(1, 2)}) == 5


def test_digits_splits_are_disjoint_and_cover_everything() -> None:
    sources = {split: open_source("digits", None, split) for split in DIGIT_SPLITS}
    assert {split: len(source) for split, source in sources.items()} == {"train": 600, "val": 500, "test": 697}
    origin = [number for source in sources.values() for number in source.origin]
    assert sorted(origin) == list(range(1797))
    assert sources["train"].origin[:5] == open_source("digits", None, "train").origin[:5] == (1032, 200, 74, 198, 550)


@pytest.mark.parametrize("split", DIGIT_SPLITS)
def test_digits_splits_have_the_classes_in_proportion(split: str) -> None:
    from sklearn.datasets import load_digits

    whole = np.bincount(load_digits().target)
    source = open_source("digits", None, split)
    counts = np.bincount([source.read(index)[1] for index in range(len(source))])
    assert np.abs(counts - whole * len(source) / 1797).max() <= 1


def test_digits_are_the_data_sets_pictures() -> None:
    from sklearn.datasets import load_digits

    source = open_source("digits", None, "val")
    image, label = source.read(3)
    expected = load_digits()
    assert (image.mode, image.size, source.classes[label]) == ("RGB", (8, 8), str(expected.target[source.origin[3]]))
    assert np.array_equal(np.asarray(image)[..., 1], np.rint(expected.images[source.origin[3]] * 255 / 16))


def test_digits_refuse_an_unknown_split() -> None:
    with pytest.raises(UsageError, match="no split 'valid'") as caught:
        open_source("digits", None, "valid")
    assert "val" in str(caught.value.hint)


@pytest.mark.parametrize("split", ["train", "", "."])
def test_a_folder_is_read_in_sorted_order(tmp_path: Path, split: str) -> None:
    write_folder(tmp_path / split, "ba")
    source = open_source("folder", tmp_path, split)
    assert source.classes == ("a", "b")
    assert len(source) == 4
    image, label = source.read(3)
    assert (image.getpixel((0, 0)), label) == ((ord("b"), 1, 0), 1)
    assert source.describe(3) == str(tmp_path / split / "b" / "1.png")


def test_folder_pictures_become_rgb(tmp_path: Path) -> None:
    write_folder(tmp_path, "a", images=0)
    Image.new("L", (4, 4), 7).save(tmp_path / "a" / "grey.png")
    assert open_source("folder", tmp_path, "").read(0)[0].getpixel((0, 0)) == (7, 7, 7)


def test_folder_errors_say_what_is_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "a")
    write_folder(tmp_path / "val", "ab", images=0)
    (tmp_path / "test").mkdir()
    with pytest.raises(UsageError, match="needs a path"):
        open_source("folder", None, "train")
    with pytest.raises(UsageError, match="does not exist"):
        open_source("folder", tmp_path / "nowhere", "train")
    with pytest.raises(UsageError, match="is a file"):
        open_source("folder", tmp_path / "train" / "a" / "0.png", "")
    with pytest.raises(UsageError, match="for the split 'evaluation'") as caught:
        open_source("folder", tmp_path, "evaluation")
    assert all(name in str(caught.value.hint) for name in ("train", "val"))
    with pytest.raises(UsageError, match="class folder") as caught:
        open_source("folder", tmp_path, "test")
    assert "<class>" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no valid file for the classes a, b"):
        open_source("folder", tmp_path, "val")


def test_the_folder_of_a_split_is_not_that_of_the_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "ab")
    with pytest.raises(UsageError) as caught:
        open_source("folder", tmp_path / "train", "val")
    assert caught.value.hint == f"the path is that of the folder which holds the splits: {tmp_path}"


def test_what_lies_beside_a_data_sets_own_folder_is_not_part_of_it(tmp_path: Path) -> None:
    own = tmp_path / "batches"
    own.mkdir()
    (own / "data").write_bytes(b"1")
    dataset = SimpleNamespace(root=tmp_path, base_folder="batches", targets=[0])
    source = _TorchvisionSource("torch/x", ("a",), dataset)
    before = list(source.fingerprint())
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "metrics.jsonl").write_text("{}")
    assert list(source.fingerprint()) == before
    (own / "data").write_bytes(b"12")
    assert list(source.fingerprint()) != before


def test_training_and_evaluation_must_agree_on_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", "abc")
    write_folder(tmp_path / "val", "abd")
    train, val = (open_source("folder", tmp_path, split) for split in ("train", "val"))
    check_same_classes(train, open_source("folder", tmp_path, "train"))
    with pytest.raises(UsageError, match="only in training: 'c'; only in evaluation: 'd'"):
        check_same_classes(train, val)
    with pytest.raises(UsageError, match="another order"):
        check_same_classes(train, SimpleNamespace(name="other", classes=("c", "b", "a")))


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("wds/imagenet", "wds data is found by its folder"),
        ("tfds/mnist", "stream"),
        ("hfids/mnist", "stream"),
        ("imagenet", "is not a data source"),
        ("torch/no_such_set", "no_such_set"),
        ("torch/cifar10", "not found"),
    ],
)
def test_names_that_can_not_be_opened(tmp_path: Path, source: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        open_source(source, tmp_path, "train")
    assert caught.value.hint


def test_a_near_miss_is_named() -> None:
    with pytest.raises(UsageError, match="is not a data source") as caught:
        open_source("digit", None, "train")
    assert "did you mean 'digits'?" in str(caught.value.hint)


def test_hugging_face_data_without_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match="datasets is not installed"):
        open_source("hfds/mnist", None, "train")


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 3), ("t10k", 2)):
        pixels = np.full((count, 28, 28), 9, dtype=np.uint8)
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">IIII", 2051, count, 28, 28) + pixels.tobytes())
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 2049, count) + bytes(range(count)))
    return tmp_path


def test_a_torchvision_data_set(mnist: Path) -> None:
    train, val = (open_source("torch/mnist", mnist, split) for split in ("train", "val"))
    assert (len(train), len(val), len(train.classes)) == (3, 2, 10)
    image, label = train.read(2)
    assert (image.mode, image.getpixel((0, 0)), label) == ("RGB", (9, 9, 9), 2)
    assert train.describe(2) == "torch/mnist (train), sample 2"


def test_a_misspelt_split_does_not_become_the_test_pictures(mnist: Path) -> None:
    with pytest.raises(UsageError, match="no split 'trian'"):
        open_source("torch/mnist", mnist, "trian")


class TwoPictures:
    """A reader as timm's for Hugging Face data: the second image is damaged."""

    def __init__(self, class_to_idx: dict[str, int]) -> None:
        self.class_to_idx = class_to_idx

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        stream = io.BytesIO()
        Image.new("RGB", (4, 4), (5, 5, 5)).save(stream, "PNG")
        return io.BytesIO(stream.getvalue() if index == 0 else b"not an image"), 1


def open_reader(monkeypatch: pytest.MonkeyPatch, class_to_idx: dict[str, int]) -> ImageSource:
    dataset = ImageDataset(None, reader=TwoPictures(class_to_idx))
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__spec__=object()))
    monkeypatch.setattr("timm.data.dataset_factory.create_dataset", lambda *_, **__: dataset)
    return open_source("hfds/pets", None, "train")


def test_a_damaged_picture_of_a_reader_is_not_replaced_by_another(monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_reader(monkeypatch, {"dog": 1, "cat": 0})
    image, label = source.read(0)
    assert (image.getpixel((0, 0)), source.classes[label]) == ((5, 5, 5), "dog")
    with pytest.raises(DataError, match="not an image of a format"):
        source.read(1)


def test_a_reader_that_does_not_know_its_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="how many classes"):
        open_reader(monkeypatch, {})
