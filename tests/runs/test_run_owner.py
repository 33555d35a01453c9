"""A run's folder, and a comparison's, has one owner at a time."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, snapshot, spgsurgeon, succeed
from held_folders import held_elsewhere

SMALL = ("training.batch_size=500", "data.workers=0")
PLAIN = ("train", *TINY, *DIGITS, *SMALL, "trp.kind=none")
COMPARED = (
    "compare",
    *TINY,
    *DIGITS,
    "data.workers=0",
    "data.holdout=0.5",
    "--seeds",
    "2",
    "--arms",
    "plain",
    "--jobs",
    "1",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    succeed(*PLAIN, "-o", place / "run")
    succeed("graft", *TINY, "--num-classes", 10, "-o", place / "grafted")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


WRITERS = {
    "resume": ("train", "-o", "run", "--resume"),
    "force": (*PLAIN, "-o", "run", "--force"),
    "graft": ("graft", *TINY, "--num-classes", "10", "-o", "run", "--force"),
    "strip": ("strip", "grafted", "-o", "run", "--force"),
    "demo": ("demo", "-o", "run", "--force"),
    "compare": (*COMPARED, "-o", "run", "--force"),
}


@pytest.mark.parametrize("case", WRITERS)
def test_nobody_writes_into_the_run_of_another_process(case: str, place: Path) -> None:
    with held_elsewhere(place / "run") as other:
        before = snapshot(place)
        outcome = spgsurgeon(*WRITERS[case])
        assert outcome.code == 2
        assert f"run is in use: process {other.pid} on {os.uname().nodename}" in " ".join(outcome.err.split())
        assert snapshot(place) == before
        assert spgsurgeon("train", "-o", "run", "--resume", "--dry-run").code == 0, "which only reads"
        assert spgsurgeon("strip", "run", "-o", "out").code == 0
    succeed("train", "-o", "run", "--resume")


def test_a_lock_that_a_killed_process_left_is_taken_over_and_said(place: Path) -> None:
    with held_elsewhere(place / "run") as other:
        pass
    said = f"process {other.pid} on {os.uname().nodename} ended without leaving run in order; its lock is taken over"
    assert said in " ".join(succeed("train", "-o", "run", "--resume").err.split())
    assert "taken over" not in succeed("train", "-o", "run", "--resume").err


@pytest.mark.slow
def test_a_comparison_has_one_owner_and_so_has_each_of_its_runs(place: Path) -> None:
    stopped = subprocess.Popen(
        [sys.executable, "-m", "spgsurgeon", *COMPARED, "training.epochs=40", "-o", "c"], stderr=subprocess.PIPE
    )
    runs = place / "c" / "runs"
    while not list(runs.glob("*/*/*/last")):
        assert stopped.poll() is None, stopped.communicate()
        time.sleep(0.05)
    (run,) = (link.parent for link in runs.glob("*/*/*/last"))
    for arguments in (("compare", "-o", "c", "--resume"), (*COMPARED, "-o", "c", "--force")):
        outcome = spgsurgeon(*arguments)
        assert (outcome.code, f"c is in use: process {stopped.pid} on" in outcome.err) == (2, True), outcome
    outcome = spgsurgeon("train", "-o", run, "--resume")
    assert (outcome.code, "is in use" in outcome.err) == (2, True), outcome
    stopped.send_signal(signal.SIGTERM)
    assert stopped.wait() == 143
    stopped.stderr.close()
    assert list((place / "c").rglob(".lock")) == []


@pytest.mark.slow
def test_of_two_that_start_at_once_one_has_the_folder(place: Path) -> None:
    command = [sys.executable, "-m", "spgsurgeon", *PLAIN, "training.epochs=2", "--json", "-o", "new"]
    for options in ((), ("--force",)):
        both = [subprocess.Popen([*command, *options], stdout=subprocess.PIPE) for _ in range(2)]
        documents = [json.loads(process.communicate()[0]) for process in both]
        codes = sorted(process.returncode for process in both)
        assert codes == [0, 2] or (options and codes == [0, 0]), documents  # one may have come after the other
        (won, *_) = (document for document in documents if "error" not in document)
        assert won["steps"] == 2
        assert len((place / "new" / "metrics.jsonl").read_text().splitlines()) == 2
        assert {path.name for path in place.glob(".*")} == set()
        assert not (place / "new" / ".lock").exists()
