"""The record of each sample's episodes, as it is written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spgsurgeon.errors import DamagedFileError
from spgsurgeon.runs.episode_log import add_lengths, read_episodes, write_samples


def recorded(run: Path, *epochs: tuple[str, int, list[int]]) -> Path:
    run.mkdir(exist_ok=True)
    write_samples(run, ["a", "b"], [1, 0])
    for phase, epoch, lengths in epochs:
        add_lengths(run, {"epoch": epoch, "phase": phase, "loss": 1.0}, lengths)
    return run


def test_epochs_of_the_training_are_read_and_of_two_lines_the_later(tmp_path: Path) -> None:
    lines = [("cold", 1, [1, 1]), ("train", 1, [1, 2]), ("train", 1, [3, 0]), ("train", 2, [4, 1])]
    run = recorded(tmp_path / "run", *lines)
    found = read_episodes(run)
    assert (found.names, found.labels, dict(found.epochs)) == (["a", "b"], [1, 0], {1: [3, 0], 2: [4, 1]})
    assert (found.steps_of(0), found.steps_of(1)) == ([2, 3], [None, 0])


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    run = recorded(tmp_path / "run", ("train", 1, [1, 2]))
    with (run / "episodes.jsonl").open("a") as file:
        file.write('{"epoch": 2, "ph')
    assert list(read_episodes(run).epochs) == [1]


@pytest.mark.parametrize(
    "line",
    ["", "[]", {"epoch": 1, "phase": "train", "lengths": [1]}, {"epoch": 1, "phase": "train", "lengths": [1, -1]}],
)
def test_what_no_run_has_written_is_damaged(line: Any, tmp_path: Path) -> None:
    run = recorded(tmp_path / "run")
    with (run / "episodes.jsonl").open("a") as file:
        file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    with pytest.raises(DamagedFileError, match="does not hold the episodes"):
        read_episodes(run)
