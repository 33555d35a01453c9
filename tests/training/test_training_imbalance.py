"""Class weights, balanced epochs and a limit of the evaluation, through the real entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import TINY, make_image_folder, make_mask_folder, spgsurgeon, succeed
from tiny_masks import NoiseMasks
from tiny_runs import ONE_PROCESS
from torch import Tensor

from spgsurgeon.data import open_source
from spgsurgeon.data.transforms.masks import IGNORED
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.distributed import Processes
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.question_answering import QUESTION_ANSWERING
from spgsurgeon.tasks.segmentation import SEGMENTATION
from spgsurgeon.training.weights.class_weights import class_weights


class Share(Processes):
    """One process of several, which knows what the `others` counted, and hands out what it counted itself."""

    def __init__(self, rank: int, world_size: int, others: Any = 0) -> None:
        super().__init__(rank, world_size, torch.device("cpu"))
        object.__setattr__(self, "others", others)

    def sum(self, tensor: Tensor) -> Tensor:
        object.__setattr__(self, "own", tensor)
        return tensor + self.others


QUICK = ("training.epochs=1", "training.batch_size=4", "training.device=cpu", "data.workers=0", "data.image_size=32")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight images of one class and two of another."""
    folder = make_image_folder(tmp_path_factory.mktemp("uneven"), each=8)
    for number in range(2, 8):
        (folder / "train" / "class0001" / f"{number}.png").unlink()
    return folder


def command(folder: Path, *settings: str) -> tuple[object, ...]:
    data = f"data={{path: {folder}, augment: {{crop: resize}}}}"
    return ("train", *TINY, "--recipe", "digits-dropout", data, *QUICK, *settings, "--json")


def trained(folder: Path, run: Path, *settings: str) -> tuple[dict[str, Any], dict[str, Any]]:
    document = succeed(*command(folder, *settings), "-o", run).document
    return document, json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])


def test_balanced_weights_weigh_each_class_the_same(uneven: Path) -> None:
    source = open_source("folder", uneven, "train")
    weights = class_weights("balanced", source, "folder", CLASSIFICATION, ONE_PROCESS)
    assert weights is not None
    assert weights.tolist() == pytest.approx([10 / (2 * 8), 10 / (2 * 2)])
    assert (weights.numpy() * np.bincount(source.labels())).sum() == pytest.approx(10)  # type: ignore[attr-defined]
    named = class_weights({"class0001": 3.0}, source, "folder", CLASSIFICATION, ONE_PROCESS)
    assert named is not None
    assert named.tolist() == [1.0, 3.0]
    assert class_weights(None, source, "folder", CLASSIFICATION, ONE_PROCESS) is None


def test_weights_that_mean_nothing_are_refused(uneven: Path) -> None:
    source = open_source("folder", uneven, "train")
    with pytest.raises(UsageError, match="which is not a class") as caught:
        class_weights({"class001": 3.0}, source, "folder", CLASSIFICATION, ONE_PROCESS)
    assert "class0001" in str(caught.value.hint)
    with pytest.raises(UsageError, match="predicts where the answer"):
        class_weights("balanced", source, "questions", QUESTION_ANSWERING, ONE_PROCESS)
    with pytest.raises(UsageError, match="lists 3 weights") as caught:
        class_weights([1.0, 2.0, 3.0], source, "folder", CLASSIFICATION, ONE_PROCESS)
    assert "class0000, class0001" in str(caught.value.hint)


def test_a_list_is_in_the_order_of_classes(uneven: Path) -> None:
    source = open_source("folder", uneven, "train")
    weights = class_weights([1.0, 2.5], source, "folder", CLASSIFICATION, ONE_PROCESS)
    assert weights is not None
    assert weights.tolist() == [1.0, 2.5]


@pytest.mark.parametrize("processes", [1, 2])
def test_balanced_weights_of_masks_count_pixels_and_say_what_was_found(processes: int) -> None:
    source, told = NoiseMasks(11), list[str]()
    drawn = torch.cat([source.read(index)[1].ravel() for index in range(len(source))])
    counts = torch.bincount(drawn[drawn != IGNORED], minlength=len(source.classes))
    shares = [Share(rank, processes) for rank in range(processes)]
    for share in shares:
        class_weights("balanced", source, "masks", SEGMENTATION, share, told.append)
    whole = Share(0, processes, sum(share.own for share in shares[1:]))
    weights = class_weights("balanced", source, "masks", SEGMENTATION, whole, told.append)
    assert weights is not None
    assert (weights * counts).tolist() == pytest.approx([counts.sum().item() / len(counts)] * len(counts))
    assert told[-2] == "counting the pixels of each class in 11 samples (training.class_weights=balanced)"
    rarest = int(counts.argmin())
    assert told[-1].startswith(
        f"classes weigh, by {counts.sum():,} pixels: {rarest} {weights[rarest]:.4g} ({counts[rarest]:,} pixels)"
    )


def test_a_class_without_a_pixel_weighs_nothing_and_comes_last() -> None:
    source, told = NoiseMasks(3), list[str]()
    source.classes = (*source.classes, "never")
    weights = class_weights("balanced", source, "masks", SEGMENTATION, ONE_PROCESS, told.append)
    assert weights is not None
    assert weights[-1] == 0
    assert weights[:-1].all()
    assert told[-1].endswith("never 0 (0 pixels)")


@pytest.mark.slow
def test_balanced_masks_are_trained_and_the_notes_have_the_counts(tmp_path: Path) -> None:
    folder = make_mask_folder(tmp_path / "masks", each=4)
    document = succeed(
        *("train", "torchvision/lraspp_mobilenet_v3_large", "--random-weights", "--recipe", "camvid-lraspp-dropout"),
        f"data={{source: masks, path: {folder}, classes: 3}}",
        *("training.class_weights=balanced", *QUICK, "-o", tmp_path / "run", "--json"),
    ).document
    assert [note for note in document["notes"] if note.startswith("classes weigh, by ")]


@pytest.mark.slow
def test_weights_change_what_is_learned_and_not_what_is_scored(uneven: Path, tmp_path: Path) -> None:
    plain, weighed = (
        trained(uneven, tmp_path / name, f"training.class_weights={said}")
        for name, said in (("plain", "null"), ("weighed", "{class0001: 5}"))
    )
    assert plain[0]["content_hash"] != weighed[0]["content_hash"]
    assert plain[0]["original"]["loss"] == weighed[0]["original"]["loss"]
    refused = spgsurgeon(*command(uneven, "training.class_weights={wolf: 2}"), "-o", tmp_path / "none")
    assert refused.code == 2
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_a_balanced_epoch_has_each_class_as_often(uneven: Path, tmp_path: Path) -> None:
    _, line = trained(uneven, tmp_path / "run", "data.balance=true", "training.drop_last=false")
    assert [sum(row) for row in line["accepted_by_class"]] == [5, 5]


def test_masks_have_no_balance(tmp_path: Path) -> None:
    folder = make_mask_folder(tmp_path / "masks")
    data = f"data={{source: masks, path: {folder}, balance: true}}"
    outcome = spgsurgeon("train", *TINY, "--recipe", "digits-dropout", data)
    assert outcome.code == 2
    assert "data.balance" in outcome.err


@pytest.mark.slow
def test_scores_of_a_part_say_so(tmp_path: Path) -> None:
    folder = make_image_folder(tmp_path / "data", classes=2, each=8)
    document, _ = trained(folder, tmp_path / "run", "data.eval_limit=6")
    assert document["best"]["samples"] == document["original"]["samples"] == 6
    assert [note for note in document["notes"] if "scores are of 6 of the 16 samples" in note]
    whole, _ = trained(folder, tmp_path / "whole", "data.eval_limit=16")
    assert whole["best"]["samples"] == 16
    assert not [note for note in whole["notes"] if "scores are of" in note]
    held, _ = trained(folder, tmp_path / "held", "data.eval=holdout", "data.holdout=0.5", "data.eval_limit=4")
    assert held["best"]["samples"] == 4
