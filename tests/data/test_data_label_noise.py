"""Labels made wrong by design: which become wrong, what they become, and what they never depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from command_line import make_image_folder
from numpy.typing import NDArray
from PIL import Image

from spgsurgeon.data import open_source
from spgsurgeon.data.label_noise import with_label_noise, wrong_labels
from spgsurgeon.data.subsets import limit_classes
from spgsurgeon.errors import RecipeError, UsageError
from spgsurgeon.recipe import DataSection, read_recipe
from spgsurgeon.runtime import derive_seed
from spgsurgeon.training.data import open_data, open_training


class Many:
    """Samples without content, of classes one after the other, `left_out` without one."""

    name, notes = "many", ()

    def __init__(self, samples: int, classes: int, left_out: int = 0) -> None:
        self.classes = tuple(f"class {label}" for label in range(classes))
        self._labels = np.arange(samples) % classes
        self._labels[:left_out] = -1

    def __len__(self) -> int:
        return len(self._labels)

    def read(self, index: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (1, 1)), int(self._labels[index])

    def labels(self) -> NDArray[np.int64]:
        return self._labels

    def describe(self, index: int) -> str:
        return str(index)

    def file_paths(self) -> tuple[str, ...]:
        return ()

    def marks(self) -> tuple[str, ...]:
        return ()

    def fingerprint(self) -> tuple[str, ...]:
        return ()


def section(*overrides: str) -> DataSection:
    return read_recipe("digits-dropout", overrides).data


def test_symmetric_noise_takes_a_class_for_each_of_the_others_alike() -> None:
    source = Many(50_000, 5)
    noisy = with_label_noise(source, "symmetric", 0.4, seed=3)
    became = np.zeros((5, 5))
    np.add.at(became, (source.labels(), noisy.labels()), 1 / 10_000)
    assert became.diagonal() == pytest.approx([0.6] * 5, abs=0.02)  # four standard deviations
    assert became[~np.eye(5, dtype=bool)] == pytest.approx([0.1] * 20, abs=0.012)
    assert wrong_labels(noisy) == (source.labels() != noisy.labels()).sum()


def test_asymmetric_noise_takes_a_class_for_the_next_one_or_its_pair() -> None:
    source = Many(8_000, 4)
    labels = source.labels()
    given = with_label_noise(source, "asymmetric", 0.3, seed=3).labels()
    assert set((given - labels)[given != labels].tolist()) == {1, -3}
    assert (given != labels).mean() == pytest.approx(0.3, abs=0.021)
    pairs = {"class 0": "class 2", "class 2": "class 0", "class 3": "class 1"}
    given = with_label_noise(source, "asymmetric", 1.0, seed=3, pairs=pairs).labels()
    assert given.tolist() == np.array([2, 1, 0, 1])[labels].tolist()


@pytest.mark.parametrize("kind", ["symmetric", "asymmetric"])
def test_a_sample_is_wrong_by_seed_and_number_alone_and_stays_so_at_a_higher_rate(kind) -> None:
    few, many = Many(90, 3), Many(9_000, 3)
    at = {rate: with_label_noise(many, kind, rate, seed=1).labels() for rate in (0.0, 0.2, 0.6, 1.0)}
    assert with_label_noise(few, kind, 0.6, seed=1).labels().tolist() == at[0.6][:90].tolist()
    assert (at[0.0] == many.labels()).all()
    assert (at[1.0] != many.labels()).all()
    was_wrong = at[0.2] != many.labels()
    assert (at[0.6] == at[0.2])[was_wrong].all()
    assert (with_label_noise(many, kind, 0.6, seed=2).labels() != at[0.6]).any()


def test_a_sample_is_wrong_by_the_raw_numbers_that_philox_has_in_every_version() -> None:
    """Labels of a run have to come again."""
    assert derive_seed(0, "label-noise") == 4759561560509827306
    first, second = (8476104735652301414, 1840490088312505211), (8248422227066883873, 9613378978239169085)
    noisy = with_label_noise(Many(2, 10), "symmetric", 1.0, seed=0)
    assert noisy.labels().tolist() == [(1 + first[1] % 9) % 10, (2 + second[1] % 9) % 10]
    lower = sorted([first[0] / 2**64, second[0] / 2**64])
    assert wrong_labels(with_label_noise(Many(2, 10), "symmetric", (lower[0] + lower[1]) / 2, seed=0)) == 1


def test_labels_that_are_not_classes_stay_as_they_are() -> None:
    noisy = with_label_noise(Many(100, 4, left_out=10), "symmetric", 1.0, seed=0)
    assert noisy.labels()[:10].tolist() == [-1] * 10
    assert noisy.labels().min() == -1
    assert noisy.labels().max() == 3


def test_what_is_read_has_the_given_label_and_files_know_which_it_was(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path, each=8)
    source = open_source("folder", folder, "train")
    noisy = with_label_noise(source, "symmetric", 0.5, seed=0)  # type: ignore[arg-type]
    assert [noisy.read(index)[1] for index in range(len(noisy))] == noisy.labels().tolist()
    assert 0 < wrong_labels(noisy) < len(noisy)
    assert (noisy.name, noisy.classes, noisy.describe(3)) == (source.name, source.classes, source.describe(3))
    assert list(noisy.file_paths()) == list(source.file_paths())
    assert list(noisy.marks()) != list(source.marks())
    assert list(noisy.fingerprint()) != list(source.fingerprint())  # type: ignore[attr-defined]
    kept = limit_classes(noisy, 3)
    assert np.bincount(kept.labels()).tolist() == [3, 3]
    assert [kept.read(index)[1] for index in range(len(kept))] == kept.labels().tolist()
    assert wrong_labels(kept) <= wrong_labels(noisy)


def test_pairs_of_unknown_classes_are_refused() -> None:
    with pytest.raises(UsageError, match="'class 9'") as caught:
        with_label_noise(Many(8, 4), "asymmetric", 0.5, seed=0, pairs={"class 9": "class 1"})
    assert caught.value.code == "unknown-class"


def test_only_what_is_trained_on_has_wrong_labels_whatever_is_held_out() -> None:
    noise = "data.label_noise={rate: 0.5, seed: 4}"
    clean, whole = open_data(section()), open_data(section(noise))
    assert (whole.train.labels() != clean.train.labels()).sum() > 200  # type: ignore[attr-defined]
    assert (whole.evaluation.labels() == clean.evaluation.labels()).all()  # type: ignore[attr-defined]
    parts = open_data(section(noise, "data.holdout=0.25", "data.eval=holdout"))
    true = open_data(section("data.holdout=0.25", "data.eval=holdout"))
    assert (parts.evaluation.labels() == true.evaluation.labels()).all()  # type: ignore[attr-defined]
    chosen = parts.train.indices  # type: ignore[attr-defined]
    assert (chosen == true.train.indices).all()  # type: ignore[attr-defined]
    assert (parts.train.labels() == whole.train.labels()[chosen]).all()  # type: ignore[attr-defined]
    assert (open_training(section(noise, "data.holdout=0.25")).labels() == parts.train.labels()).all()  # type: ignore[attr-defined]
    same = open_data(section(noise, "data.eval=train"))
    assert (same.evaluation.labels() == clean.train.labels()).all()  # type: ignore[attr-defined]


def test_what_is_said_counts_the_labels_that_are_trained_on() -> None:
    part = section("data.label_noise.rate=0.5", "data.holdout=0.25", "data.limit=20")
    found, true = open_data(part), open_data(section("data.holdout=0.25"))
    wrong = sum(
        found.train.read(index)[1] != true.train.whole.read(int(number))[1]  # type: ignore[attr-defined]
        for index, number in enumerate(found.train.indices)  # type: ignore[attr-defined]
    )
    assert np.bincount(found.train.labels()).tolist() == [20] * 10  # type: ignore[attr-defined]
    (said,) = found.said
    assert said.startswith(f"{wrong} of the 200 training labels are wrong by design")
    assert open_data(section()).said == ()


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["data={source: masks, path: x, label_noise: {rate: 0.2}}"], "data.label_noise"),
        (["data={source: words, path: x, label_noise: {rate: 0.2}}"], "data.label_noise"),
        (["data={source: questions, path: x, label_noise: {rate: 0.2}}"], "data.label_noise"),
        (["data={source: choices, path: x, label_noise: {rate: 0.2}}"], "data.label_noise"),
        (["data={source: corpus, path: x, label_noise: {rate: 0.2}}"], "data.label_noise"),
        (["data.label_noise.rate=1.1"], "data.label_noise.rate"),
        (["data.label_noise={rate: 0.2, kind: human}"], "data.label_noise.kind"),
        (["data.label_noise={rate: 0.2, pairs: {1: 2}}"], "data.label_noise.pairs"),
        (["data.label_noise={rate: 0.2, kind: asymmetric, pairs: {1: 1}}"], "data.label_noise.pairs"),
        (["data.label_noise={rate: 0.2, kind: asymmetric, pairs: [1]}"], "data.label_noise.pairs"),
    ],
)
def test_noise_that_means_nothing_is_refused(overrides: list[str], key: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_recipe("digits-dropout", overrides)
    assert f"{key}: " in str(caught.value)
    assert caught.value.exit_code == 2


def test_pairs_may_be_numbers() -> None:
    noise = section("data.label_noise={rate: 0.2, kind: asymmetric, pairs: {3: 8, 8: 3}}").label_noise
    assert noise.pairs == {"3": "8", "8": "3"}


def test_texts_have_wrong_labels_too(tmp_path: Path) -> None:
    for split in ("train", "val"):
        lines = [f"text {number}\t{('bad', 'fair', 'good')[number % 3]}" for number in range(60)]
        (tmp_path / f"{split}.tsv").write_text("\n".join(["sentence\tlabel", *lines]))
    data = open_data(section(f"data={{source: texts, path: {tmp_path}, label_noise: {{rate: 0.5, kind: asymmetric}}}}"))
    true = data.evaluation.labels()  # type: ignore[attr-defined]
    found = [data.train.read(index) for index in range(60)]
    assert [text for text, _ in found] == [(f"text {number}",) for number in range(60)]
    assert {(label - int(before)) % 3 for (_, label), before in zip(found, true, strict=True)} == {0, 1}
