"""Parts of a data set: which samples they are, what they call them, and what can't be parted."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from command_line import make_image_folder
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageDataset
from tiny_masks import NoiseMasks
from tiny_shards import make_same_folder, make_shards

from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.sources.source import ImageSource
from spgsurgeon.data.strata import stratified_order
from spgsurgeon.data.subsets import hold_out, hold_out_masks, limit_classes
from spgsurgeon.errors import UsageError


class Labelled:
    """Samples with these labels, whose images tell their number."""

    name = "labelled"

    def __init__(self, *targets: int) -> None:
        self.targets = targets
        self.classes = tuple(str(label) for label in range(max(targets) + 1))

    def __len__(self) -> int:
        return len(self.targets)

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (4, 4), (index, 0, 0)), self.targets[index]

    def labels(self) -> NDArray[np.int64]:
        return np.array(self.targets)

    def describe(self, index: int) -> str:
        return f"number {index}"


def numbers(source: ImageSource) -> list[int]:
    return [source.read(index)[0].getpixel((0, 0))[0] for index in range(len(source))]


def test_a_holdout_has_the_classes_in_proportion_and_is_not_trained_on() -> None:
    source = Labelled(*([0] * 50 + [1] * 30 + [2] * 20))
    left, held = hold_out(source, 0.2)
    assert np.bincount(held.labels()).tolist() == [10, 6, 4]
    assert sorted(numbers(left) + numbers(held)) == list(range(100))
    assert numbers(held) == sorted(numbers(held)) != list(range(held.labels()[0], 20))
    assert numbers(hold_out(source, 0.2)[1]) == numbers(held)
    assert (left.name, held.name) == ("labelled, 80 of 100", "labelled, 20 of 100 held out")


def test_a_part_says_of_each_sample_what_the_whole_says_of_it() -> None:
    source = Labelled(*(0, 1, 2) * 8)
    for part in (*hold_out(source, 0.25), limit_classes(source, 2)):
        assert part.classes == source.classes
        assert part.labels().tolist() == [part.read(index)[1] for index in range(len(part))]
        assert [part.describe(index) for index in range(len(part))] == [f"number {n}" for n in numbers(part)]


def test_which_samples_are_chosen_never_changes() -> None:
    left, held = hold_out(Labelled(*(0, 1) * 8), 0.25)
    assert numbers(held) == [0, 1, 3, 12]
    assert numbers(limit_classes(left, 2)) == [6, 7, 11, 14]


def test_masks_are_held_out_whatever_is_on_them_and_always_the_same() -> None:
    left, held = hold_out_masks(NoiseMasks(10), 0.3)
    assert [len(left), len(held)] == [7, 3]
    chosen = [part.describe(index) for part in (held, left) for index in range(len(part))]
    assert sorted(chosen) == [f"noise {number}" for number in range(10)]
    assert chosen[:3] == ["noise 0", "noise 3", "noise 4"]
    assert torch.equal(held.read(1)[1], NoiseMasks(10).read(3)[1])
    assert held.name == "noise with masks, 3 of 10 held out"
    for count, share in ((10, 0.04), (1, 0.9)):
        with pytest.raises(UsageError, match=f"is empty: it has {count} samples$"):
            hold_out_masks(NoiseMasks(count), share)
    assert len(hold_out_masks(NoiseMasks(3), 0.99)[0]) == 1


def test_a_limit_applies_to_what_is_left_and_a_lower_one_is_part_of_a_higher() -> None:
    left, held = hold_out(Labelled(*([0] * 40 + [1] * 40 + [2] * 3)), 0.25)
    few, more = limit_classes(left, 4), limit_classes(left, 8)
    assert np.bincount(few.labels()).tolist() == [4, 4, 2]
    assert set(numbers(few)) < set(numbers(more)) < set(numbers(left))
    assert not set(numbers(more)) & set(numbers(held))
    assert few.name == "labelled, 10 of 83"


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_each_class_keeps_a_picture_to_train_on(share: float) -> None:
    left, held = hold_out(Labelled(0, 1, 1, 1, 1, 2), share)
    assert set(left.labels().tolist()) == {0, 1, 2}
    assert set(held.labels().tolist()) == {1}


@pytest.mark.parametrize(("targets", "share"), [((0, 0, 1, 1), 0.1), ((0, 1, 2), 0.9)])
def test_a_holdout_without_a_picture_is_refused(targets: tuple[int, ...], share: float) -> None:
    with pytest.raises(UsageError, match=rf"a holdout of {share} of labelled is empty") as caught:
        hold_out(Labelled(*targets), share)
    assert "data.holdout" in str(caught.value.hint)


def test_many_classes_take_no_longer_than_few() -> None:
    order = stratified_order(range(20_000), "holdout")  # each a class: searching all labels for each would take minutes
    assert sorted(order) == list(range(20_000))


# What labels are known


def test_labels_are_those_of_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image_folder(tmp_path / "images", classes=3)
    make_same_folder(tmp_path / "same")
    sources = [
        open_source("digits", None, "val"),
        open_source("folder", tmp_path / "images", "train"),
        open_source("wds", make_shards(tmp_path / "shards"), "train"),
        reader(monkeypatch, Reader()),
    ]
    for source in sources:
        labels = source.labels()
        assert labels.dtype == np.int64
        assert labels.tolist() == [source.read(index)[1] for index in range(len(source))]


def test_labels_are_known_without_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make_image_folder(tmp_path, classes=2)
    monkeypatch.setattr(Image, "open", lambda *_: pytest.fail("an image was opened"))
    assert open_source("folder", root, "train").labels().tolist() == [0, 0, 1, 1]
    assert reader(monkeypatch, Reader()).labels().tolist() == [1, 0]


@pytest.mark.parametrize("lack", ["no targets", "targets of several numbers"])
def test_labels_that_only_come_with_pictures_are_refused(lack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = Reader()
    unknown.iter_targets = None if lack == "no targets" else lambda: iter([(0, 1), (1, 0)])
    source = reader(monkeypatch, unknown)
    for part in (lambda: hold_out(source, 0.5), lambda: limit_classes(source, 1)):
        with pytest.raises(UsageError, match=r"hfds/pets \(train\) gives its labels only with its images") as caught:
            part()
        assert "source 'folder'" in str(caught.value.hint)


class Reader:
    """A reader as timm's for Hugging Face data."""

    def __init__(self) -> None:
        self.class_to_idx = {"cat": 0, "dog": 1}
        self.iter_targets: Any = lambda: iter([1, 0])

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        stream = io.BytesIO()
        Image.new("L", (4, 4), 5).save(stream, "PNG")
        return io.BytesIO(stream.getvalue()), 1 - index


def reader(monkeypatch: pytest.MonkeyPatch, reads: Reader) -> ImageSource:
    dataset = ImageDataset(None, reader=reads)
    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(__spec__=object()))
    monkeypatch.setattr("timm.data.dataset_factory.create_dataset", lambda *_, **__: dataset)
    return open_source("hfds/pets", None, "train")
