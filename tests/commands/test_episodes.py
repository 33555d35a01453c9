"""`spgsurgeon episodes`: which samples are accepted least, of a run that recorded it."""

from __future__ import annotations

import csv
import io
import shutil
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, spgsurgeon, succeed

from spgsurgeon.runs.episode_log import add_lengths, write_samples

FEW = ("data.limit=6", "data.holdout=0.1", "data.eval=holdout", "training.batch_size=20", "data.workers=0")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run, whose record is then one that can be reckoned by hand."""
    run = tmp_path_factory.mktemp("runs") / "run"
    succeed("train", *TINY, *DIGITS, *FEW, "training.record_episodes=true", "-o", run)
    assert len((run / "episodes.jsonl").read_text().splitlines()) == 2
    write_samples(run, ["hard", "easy", "late", "never", "unseen"], [0, 1, 2, 3, 4])
    for epoch, lengths in enumerate([[2, 4, 1, 1, 0], [0, 4, 1, 1, 0], [1, 4, 3, 1, 0]], start=1):
        add_lengths(run, {"epoch": epoch, "phase": "train"}, lengths)
    return run


def test_the_least_accepted_come_first(run: Path) -> None:
    document = succeed("episodes", run, "--json").document
    assert [one["name"] for one in document["worst"]] == ["never", "hard", "late", "easy"]
    assert (document["samples"], document["seen"], document["never"]) == (5, 4, 1)
    assert (document["accepts"], document["steps"]) == ("dropout rate", ["0", "0.2", "0.36", "0.488"])
    hard = document["worst"][1]
    assert (hard["mean_step"], hard["first"], hard["accepted"], hard["class"]) == (0.5, 1, [1, None, 0], "0")
    assert document["worst"][2]["first"] == 3


def test_a_table_shows_as_many_as_asked_for(run: Path) -> None:
    out = succeed("episodes", run, "--worst", 1).out
    assert "never" in out
    assert "hard" not in out
    assert "dropout rate 0, 0.2, 0.36, 0.488" in out


def test_values_for_other_programs_are_of_all_samples(run: Path) -> None:
    rows = list(csv.reader(io.StringIO(succeed("episodes", run, "--csv").out)))
    assert rows[0] == ["sample", "name", "class", "mean_step", "first", "epoch 1", "epoch 2", "epoch 3"]
    assert rows[1:3] == [["3", "never", "3", "0.0", "", "0", "0", "0"], ["0", "hard", "0", "0.5", "1", "1", "", "0"]]
    assert len(rows) == 5


def test_a_report_lists_them(run: Path, tmp_path: Path) -> None:
    succeed("report", run, "-o", tmp_path / "report")
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<tr><td>never</td><td>3</td>" in page
    assert page.index("<td>never</td>") < page.index("<td>hard</td>") < page.index("<td>easy</td>")


def test_a_report_says_of_a_damaged_record(run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "run"
    shutil.copytree(run, damaged, symlinks=True)
    (damaged / "episodes.jsonl").write_text("[]\n")
    notes = succeed("report", damaged, "-o", tmp_path / "report", "--json").document["notes"]
    assert any("episodes.jsonl is damaged" in note for note in notes)


def test_a_run_without_a_record_says_how_to_get_one(tmp_path: Path) -> None:
    succeed("train", *TINY, *DIGITS, *FEW, "-o", tmp_path / "run")
    refused = spgsurgeon("episodes", tmp_path / "run", "--json")
    assert (refused.code, refused.document["error"]["code"]) == (2, "no-episodes")
    assert "training.record_episodes=true" in refused.document["error"]["hint"]
    assert spgsurgeon("episodes", tmp_path).code == 2
