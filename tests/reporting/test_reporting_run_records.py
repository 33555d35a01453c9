"""What is read back from metrics.jsonl, whole and damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from recorded import LABELS, line, record

from spgsurgeon.reporting.run_records import EpochRecord, read_epochs, step_labels


def write(path: Path, *lines: dict[str, Any] | str) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in lines))
    return path


def test_a_line_is_read(tmp_path: Path) -> None:
    (epoch,), damaged = read_epochs(write(tmp_path / "metrics.jsonl", line(0)))
    assert damaged == []
    assert (epoch.loss, epoch.valid_share, epoch.step_cross_entropy) == (1.5, [1.0, 0.8, 0.6], [1.0, 0.5, None])
    assert epoch.evaluation is not None
    assert epoch.evaluation.top1 == 80.0


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
        json.dumps(line(1) | {"loss": "high"}),
        json.dumps(line(1) | {"phase": "hot"}),
        json.dumps(line(1) | {"epoch": -1}),
        json.dumps(line(1) | {"valid_share": [1.0, 0.5]}),
        json.dumps(line(1) | {"valid_share": [], "step_cross_entropy": []}),
        json.dumps(line(1) | {"accepted_by_class": [[1, 2, 3], [1, 2]]}),
        json.dumps(line(1) | {"accepted_by_class": [[1, 2, -3]]}),
        json.dumps(line(1) | {"pictures": {"shortest": []}}),
    ],
)
def test_a_damaged_line_is_named_and_the_others_are_read(damage: str, tmp_path: Path) -> None:
    epochs, damaged = read_epochs(write(tmp_path / "metrics.jsonl", line(0), damage, line(2)))
    assert [epoch.epoch for epoch in epochs] == [0, 2]
    assert damaged == [2]


def test_bytes_that_are_no_text_damage_their_line_only(tmp_path: Path) -> None:
    path = write(tmp_path / "metrics.jsonl", line(0))
    path.write_bytes(b"\xff\xfe\n" + path.read_bytes())
    epochs, damaged = read_epochs(path)
    assert ([epoch.epoch for epoch in epochs], damaged) == ([0], [1])


def test_of_two_lines_about_an_epoch_the_later_counts(tmp_path: Path) -> None:
    epochs, _ = read_epochs(write(tmp_path / "metrics.jsonl", line(1), line(0), line(1) | {"loss": 7.0}))
    assert [(epoch.epoch, epoch.loss) for epoch in epochs] == [(0, 1.5), (1, 7.0)]


def test_steps_that_share_a_label_are_numbered() -> None:
    assert step_labels(EpochRecord.model_validate(line(0))) == list(LABELS)
    same = line(0) | {"accepted_units": {"0": 100}}
    assert step_labels(EpochRecord.model_validate(same)) == ["0", "1", "2"]


def test_epochs_count_from_the_first_training_epoch() -> None:
    run = record(line(0, cold=True), line(1, cold=True), line(2), cold_epochs=2)
    assert [run.place(epoch) for epoch in run.epochs] == [-1, 0, 1]
    assert [epoch.epoch for epoch in run.trained] == [2]


def test_the_score_is_known_from_the_epochs_too() -> None:
    assert record().metric == "top1"
    assert record(line(0), original=None).metric == "top1"
    assert record(line(0, cold=True), original=None).metric is None
    assert record(original={"mean_iou": 40.0}).metric == "mean_iou"


def test_a_class_without_a_name_goes_by_its_number() -> None:
    assert [record(class_names=["cat"]).class_name(label) for label in (0, 1)] == ["cat", "1"]
