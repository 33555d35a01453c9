"""What is read back from metrics.jsonl, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import LABELS, line, record

from spgsurgeon.runs.records import EpochRecord, in_words, read_epochs, step_labels
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.segmentation import SEGMENTATION


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
    return path


def test_a_line_is_read(tmp_path: Path) -> None:
    (epoch,), damaged = read_epochs(write(tmp_path / "metrics.jsonl", line(1)))
    assert damaged == []
    assert (epoch.loss, epoch.valid_share, epoch.step_cross_entropy) == (1.5, [1.0, 0.8, 0.6], [1.0, 0.5, None])
    assert epoch.evaluation is not None
    assert epoch.evaluation == {"top1": 80.0, "top5": 99.0, "loss": 0.5}


def test_no_file_is_no_epoch(tmp_path: Path) -> None:
    assert read_epochs(tmp_path / "metrics.jsonl") == ([], [])


@pytest.mark.parametrize(
    "damage",
    [
        '{"epoch": 1, "ph',
        "",
        "[]",
        "\0\0\0\0",
        '{"epoch": 1}',
        json.dumps(line(2) | {"loss": "high"}),
        json.dumps(line(2) | {"phase": "hot"}),
        json.dumps(line(2) | {"epoch": 0}),
        json.dumps(line(2) | {"valid_share": [1.0, 0.5]}),
        json.dumps(line(2) | {"valid_share": [], "step_cross_entropy": []}),
        json.dumps(line(2) | {"accepted_by_class": [[1, 2, 3], [1, 2]]}),
        json.dumps(line(2) | {"accepted_by_class": [[1, 2, -3]]}),
        json.dumps(line(2) | {"pictures": {"shortest": []}}),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(damage: str, tmp_path: Path) -> None:
    epochs, damaged = read_epochs(write(tmp_path / "metrics.jsonl", line(1), damage, line(3)))
    assert [epoch.epoch for epoch in epochs] == [1, 3]
    assert damaged == [2]


def test_bytes_that_are_no_text_damage_their_line_only(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", line(1))
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    epochs, damaged = read_epochs(path)
    assert ([epoch.epoch for epoch in epochs], damaged) == ([1], [1])


def test_of_two_lines_about_an_epoch_the_later_counts(tmp_path: Path) -> None:
    epochs, _ = read_epochs(write(tmp_path / "metrics.jsonl", line(2), line(1), line(2) | {"loss": 7.0}))
    assert [(epoch.epoch, epoch.loss) for epoch in epochs] == [(1, 1.5), (2, 7.0)]


def test_epochs_of_a_cold_start_and_of_training_share_numbers_and_are_kept_apart(tmp_path: Path) -> None:
    lines = line(1), line(2, cold=True), line(1, cold=True)
    epochs, _ = read_epochs(write(tmp_path / "metrics.jsonl", *lines))
    assert [(epoch.phase, epoch.epoch) for epoch in epochs] == [("cold", 1), ("cold", 2), ("train", 1)]


def test_steps_that_share_a_label_are_numbered() -> None:
    assert step_labels(EpochRecord.model_validate(line(1))) == list(LABELS)
    same = line(1) | {"accepted_units": {"0": 100}}
    assert step_labels(EpochRecord.model_validate(same)) == ["0", "1", "2"]


def test_cold_epochs_lie_before_those_of_training() -> None:
    run = record(line(1, cold=True), line(2, cold=True), line(1), cold_epochs=2)
    assert [run.place(epoch) for epoch in run.epochs] == [-1, 0, 1]
    assert [epoch.epoch for epoch in run.trained] == [1]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([line(3)], "epoch 3"),
        ([line(1), line(3)], "epochs 1, 3"),
        ([line(2, cold=True)], "cold epoch 2"),
        ([line(1, cold=True), line(2, cold=True), line(1)], "cold epochs 1, 2 and epoch 1"),
    ],
)
def test_epochs_in_words(lines: list[dict[str, Any]], words: str) -> None:
    assert in_words([EpochRecord.model_validate(each) for each in lines]) == words


def test_the_score_is_known_from_the_epochs_too() -> None:
    assert record().metric == CLASSIFICATION.primary
    assert record(line(1), original=None).metric == CLASSIFICATION.primary
    assert record(line(1, cold=True), original=None).metric is None
    assert record(original={"mean_iou": 40.0}).metric == SEGMENTATION.primary


def test_a_class_without_a_name_goes_by_its_number() -> None:
    assert [record(class_names=["cat"]).class_name(label) for label in (0, 1)] == ["cat", "1"]
