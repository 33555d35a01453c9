"""Checkpoints beside the training: when they are due, what they hold, and what failing disks do to a run."""

import errno
import gc
import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import DIGITS, TINY, succeed
from tiny_runs import (
    EVERYTHING,
    SETTINGS,
    CrashError,
    Watcher,
    changed,
    metrics_of,
    tiny_grafted,
    tiny_retraining,
    tiny_run_folder,
    train,
    weights_hash,
)

from spgsurgeon.checkpoint import writing
from spgsurgeon.checkpoint.ownership import RECORD, record
from spgsurgeon.errors import DamagedFileError, SurgeonError
from spgsurgeon.recipe.training_section import CheckpointSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.runs import saving
from spgsurgeon.runs.checkpoints import check_checkpoint, newest_intact
from spgsurgeon.runs.folder import Checkpoint, RunFolder
from spgsurgeon.runs.saving import CheckpointSaver
from spgsurgeon.runtime.signals import InterruptedRunError


def checkpoint(value: float = 0.0, **state: Any) -> Checkpoint:
    tensors = {"weight": torch.full((3,), value)}
    return Checkpoint(base=tensors, temporary=tensors, optimizer=tensors, state={"value": value, **state})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return tiny_run_folder(tmp_path / "run")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the saver takes for the time, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(saving.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let no checkpoint be written before the event is set."""
    opened, save = threading.Event(), RunFolder.save

    def slow(self: RunFolder, *arguments: Any, **options: Any) -> None:
        assert opened.wait(10)
        save(self, *arguments, **options)

    monkeypatch.setattr(RunFolder, "save", slow)
    yield opened
    opened.set()


def saver(run: RunFolder, warnings: list[str] | None = None, **options: Any) -> CheckpointSaver:
    warn = (warnings if warnings is not None else []).append
    return CheckpointSaver(run, **{"steps": None, "minutes": None, "step": 0, "warn": warn} | options)


def value_of(folder: Path | None) -> float:
    assert folder
    value: float = json.loads((folder / "state.json").read_text())["value"]
    return value


# When


def test_due_by_steps(run: RunFolder) -> None:
    own = saver(run, steps=3)
    assert [step for step in range(8) if own.due(step)] == [3, 6]
    own.save(3, checkpoint())
    assert [step for step in range(3, 8) if own.due(step)] == [6]  # not the one that is saved already
    own.close()


def test_due_by_minutes(run: RunFolder, clock: list[float]) -> None:
    own = saver(run, minutes=0.5)
    clock[0] += 29
    assert not own.due(1)
    clock[0] += 1
    assert own.due(1)
    own.save(1, checkpoint())
    own.close()
    clock[0] += 29.9
    assert not own.due(2)
    clock[0] += 0.2
    assert own.due(2)


def test_the_clock_waits_for_the_checkpoint_that_is_being_written(
    run: RunFolder, clock: list[float], gate: threading.Event
) -> None:
    own = saver(run, minutes=1.0)
    own.save(1, checkpoint())  # returns although nothing is written yet
    assert not (run.path / "last").exists()
    clock[0] += 100
    assert not own.due(2)
    gate.set()
    own.close()
    assert own.due(2)


def test_a_closed_one_leaves_no_thread_and_can_write_again(run: RunFolder) -> None:
    """A thread would hold the run, and so its weights, for as long as the process lasts."""
    own = saver(run)
    own.save(1, checkpoint())
    own.close()
    assert "checkpoints" not in {thread.name for thread in threading.enumerate()}
    own.save(2, checkpoint())
    own.close()
    assert (run.path / "last").resolve().name == "00000002"


def test_a_run_that_is_over_leaves_no_weights_in_memory(tmp_path: Path) -> None:
    def models() -> int:
        gc.collect()
        return sum(type(one) is GraftedModel for one in gc.get_objects())

    before = models()
    succeed("train", *TINY, *DIGITS, "data.limit=10", "training.batch_size=50", "-o", tmp_path / "run")
    assert models() == before


def test_a_run_writes_them_by_steps(tmp_path: Path) -> None:
    kept: list[list[str]] = []
    path = tmp_path / "run"

    def look(done: int) -> None:
        if path.exists() and retraining._keeping._saver:
            retraining._keeping._saver.close()
            kept.append(sorted(p.name.lstrip("0") for p in (path / "checkpoints").iterdir()))

    retraining = tiny_retraining(
        changed(SETTINGS, checkpoints=CheckpointSection(steps=2)), path=path, progress=Watcher(look)
    )
    train(retraining)
    assert kept[2:5] == [["", "2"], ["", "2"], ["2", "4"]]  # two are kept, and written after the next batch was read


# What


def test_a_checkpoint_is_of_the_moment_it_was_asked_for(run: RunFolder, gate: threading.Event) -> None:
    moving = checkpoint(1.0, counters={"epoch": 1})
    own = saver(run)
    own.save(1, moving)
    for part in (moving.base, moving.temporary, moving.optimizer):
        part["weight"].fill_(7.0)
    gate.set()
    own.finish()
    loaded = run.load()
    assert loaded
    for part in (loaded.base, loaded.temporary, loaded.optimizer):
        assert part["weight"].eq(1.0).all()


def test_lines_come_before_their_checkpoint(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    save = RunFolder.save

    def watched(self: RunFolder, name: str, *arguments: Any, **options: Any) -> None:
        seen.append((name, len((run.path / "metrics.jsonl").read_text().splitlines())))
        save(self, name, *arguments, **options)

    monkeypatch.setattr(RunFolder, "save", watched)
    own = saver(run)
    for epoch in range(3):
        own.save(epoch, checkpoint(), line={"step": epoch})
    own.finish()
    assert [lines for _, lines in seen] == [1, 2, 3]


def test_a_bug_in_the_thread_ends_the_run(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*arguments: Any, **options: Any) -> None:
        raise CrashError

    monkeypatch.setattr(RunFolder, "save", crash)
    own = saver(run)
    own.save(1, checkpoint())
    with pytest.raises(CrashError):
        own.finish()


# Failing disks


class FullDisk:
    """A disk with no room for a file of weights while `full`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = False
        write = writing.save_file

        def save_file(tensors: Any, path: Path, metadata: Any) -> None:
            if self.full:
                path.write_bytes(b"half")
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            write(tensors, path, metadata)

        monkeypatch.setattr(writing, "save_file", save_file)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> FullDisk:
    return FullDisk(monkeypatch)


def test_a_full_disk_does_not_end_a_run_that_finds_room_later(tmp_path: Path, disk: FullDisk) -> None:
    def fill(done: int) -> None:
        disk.full = 5 <= done <= 9

    whole = train(tiny_retraining(EVERYTHING, path=tmp_path / "whole"))
    watcher = Watcher(fill)
    settings = changed(EVERYTHING, checkpoints=CheckpointSection(steps=1))
    retraining = train(tiny_retraining(settings, path=tmp_path / "run", progress=watcher))
    assert [("disk full" in text, "written again" in text) for text in watcher.warnings] == [
        (True, False),
        (False, True),
    ]
    assert weights_hash(retraining) == weights_hash(whole)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    for pointer in ("best", "last"):
        mine, theirs = ((tmp_path / name / pointer).resolve() for name in ("run", "whole"))
        assert mine.name[:8] == theirs.name[:8]
        assert (mine / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()


def test_a_run_that_could_not_save_its_end_fails_and_keeps_what_it_has(tmp_path: Path, disk: FullDisk) -> None:
    def fill(done: int) -> None:
        if done == 7:
            assert retraining._keeping._saver
            retraining._keeping._saver.close()  # what was begun is written
            disk.full = True

    path = tmp_path / "run"
    retraining = tiny_retraining(EVERYTHING, path=path, progress=Watcher(fill))
    with pytest.raises(SurgeonError, match="disk full"):
        train(retraining)
    check_checkpoint((path / "last").resolve())
    assert (path / "last").resolve().name == "00000006"
    assert not list(path.rglob("*.tmp"))
    disk.full = False
    resumed = train(tiny_retraining(EVERYTHING, path=path, grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(train(tiny_retraining(EVERYTHING)))


def test_the_best_is_not_lost_to_a_full_disk(run: RunFolder, disk: FullDisk, clock: list[float]) -> None:
    """It is written once there is room, although later checkpoints have come."""
    warnings: list[str] = []
    own = saver(run, warnings)
    own.save(1, checkpoint(1.0), best=True, line={"step": 0})
    own.close()
    disk.full = True
    own.save(2, checkpoint(2.0), best=True, line={"step": 1})
    own.save(3, checkpoint(3.0), line={"step": 2})
    own.close()
    assert value_of(run.path / "best") == value_of(run.path / "last") == 1.0
    assert not own.due(4)
    clock[0] += saving.RETRY_SECONDS
    assert own.due(4)
    disk.full = False
    own.save(4, checkpoint(4.0))
    own.finish()
    assert (value_of(run.path / "best"), value_of(run.path / "last")) == (2.0, 4.0)
    lines = map(json.loads, (run.path / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert len(warnings) == 2


def test_a_signal_on_a_full_disk_still_ends_the_run_as_a_signal(tmp_path: Path, disk: FullDisk) -> None:
    def fill(done: int) -> None:
        if done == 7:
            assert retraining._keeping._saver
            retraining._keeping._saver.close()
            disk.full = True
        if done == 8:
            signal.raise_signal(signal.SIGTERM)

    retraining = tiny_retraining(EVERYTHING, path=tmp_path / "run", progress=Watcher(fill))
    with pytest.raises(InterruptedRunError, match=r"after step 8; .* could not be saved, an earlier one is: disk full"):
        train(retraining)
    assert (tmp_path / "run" / "last").resolve().name == "00000006"


def test_a_line_that_did_not_fit_leaves_no_half(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.add_metrics({"step": 0})
    fsync = os.fsync
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", _raising(errno.ENOSPC))
        with pytest.raises(SurgeonError, match=r"disk full: .*metrics\.jsonl"):
            run.add_metrics({"step": 1})
    assert os.fsync is fsync
    run.add_metrics({"step": 1})
    assert (run.path / "metrics.jsonl").read_text() == '{"step": 0}\n{"step": 1}\n'
    run.close()


def _raising(number: int) -> Callable[..., None]:
    def fail(*arguments: Any) -> None:
        raise OSError(number, os.strerror(number))

    return fail


# Damage


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that keeps three checkpoints besides the best: of steps 10, 11 and 12."""
    path = tmp_path_factory.mktemp("finished") / "run"
    tiny_run_folder(path, keep=3)
    retraining = tiny_retraining(changed(EVERYTHING, checkpoints=CheckpointSection(steps=1)), path=path, keep=3)
    train(retraining)
    return path


def damage(folder: Path, file: str, how: str) -> None:
    damaged = folder / file
    if how == "missing":
        damaged.unlink()
    elif how == "flip":
        content = bytearray(damaged.read_bytes())
        content[-2] ^= 1
        damaged.write_bytes(content)
    else:
        damaged.write_bytes(damaged.read_bytes()[:-3])


FILES = [f"{name}.safetensors" for name in ("model", "temporary", "optimizer", "ema")]


@pytest.mark.parametrize("how", ["flip", *(pytest.param(how, marks=pytest.mark.slow) for how in ("cut", "missing"))])
@pytest.mark.parametrize("file", [*FILES, "state.json", "graft.json", "config.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    finished: Path, tmp_path: Path, file: str, how: str
) -> None:
    path, warnings = tmp_path / "run", list[str]()
    shutil.copytree(finished, path, symlinks=True)
    newest = (path / "last").resolve()
    damage(newest, file, how)
    folder = newest_intact(path, warnings.append)
    assert folder
    assert folder != newest
    assert len(warnings) == 1
    assert "step 12" in warnings[0] or "step 11" in warnings[0]  # a run ends with two of step 12
    assert file.partition(".")[0] in warnings[0] or newest.name in warnings[0]
    resumed = tiny_retraining(EVERYTHING, path=path, grafted=tiny_grafted(seed=9))
    assert resumed.resume(folder)
    assert not newest.exists() or newest.name.startswith("00000012")
    assert (path / "last").resolve() == folder
    assert weights_hash(train(resumed)) == weights_hash(train(tiny_retraining(EVERYTHING)))


def test_where_all_are_damaged_the_newest_is_named(finished: Path, tmp_path: Path) -> None:
    path, warnings = tmp_path / "run", list[str]()
    shutil.copytree(finished, path, symlinks=True)
    for folder in (path / "checkpoints").iterdir():
        damage(folder, "optimizer.safetensors", "flip")
    with pytest.raises(DamagedFileError, match=rf"{(path / 'last').resolve().name}.optimizer\.safetensors"):
        newest_intact(path, warnings.append)
    assert warnings == []


def test_what_a_kill_left_is_swept_when_the_run_goes_on(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(finished, path, symlinks=True)
    (path / "checkpoints" / ".00000013.12345678.tmp").mkdir()
    (path / "checkpoints" / ".00000013.12345678.tmp" / "model.safetensors").write_bytes(b"half")
    (path / ".metrics.jsonl.12345678.tmp").write_text("half")
    newer = path / "checkpoints" / "00000013"  # than `last`: not pointed to when the kill came
    newer.mkdir()
    record(newer, newer.name)
    folder = newest_intact(path, lambda text: None)
    assert tiny_retraining(EVERYTHING, path=path).resume(folder)
    assert not list(path.rglob("*.tmp"))
    assert not (path / "checkpoints" / "00000013").exists()


def test_what_a_kill_left_before_the_first_checkpoint_is_swept(run: RunFolder) -> None:
    for name in (".run.12345678.tmp", ".run.87654321.tmp", "run/.environment.json.12345678.tmp", ".other.12345678.tmp"):
        (run.path.parent / name).mkdir()
    (run.path.parent / ".run.12345678.tmp" / "recipe.yaml").touch()
    (run.path.parent / ".run.11111111.tmp" / "checkpoints").mkdir(parents=True)  # a run that was replaced
    (run.path.parent / ".run.22222222.old").mkdir()  # one that was put aside, perhaps the only one there is
    run.add_start({})
    found = sorted(path.name for path in run.path.parent.rglob(".*.*"))
    assert found == [".other.12345678.tmp", ".run.22222222.old", RECORD]


def test_a_checkpoint_too_many_goes_when_the_run_goes_on(finished: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(finished, path, symlinks=True)
    pointed = {(path / link).resolve() for link in ("last", "best")}
    for step in (1, 2, 3):  # killed after it pointed to the last one, before it dropped the oldest
        folder = shutil.copytree(path / "last", path / "checkpoints" / f"{step:08d}")
        record(folder, folder.name)
    retraining = tiny_retraining(EVERYTHING, path=path)
    assert retraining.resume(newest_intact(path, lambda text: None))
    kept = {folder for folder in (path / "checkpoints").iterdir() if folder.resolve() not in pointed}
    assert len(kept) == 1
    assert int(kept.pop().name[:8]) > 2


def test_no_checkpoint_yet(run: RunFolder) -> None:
    assert newest_intact(run.path, lambda text: None) is None
    (run.path / "last").symlink_to("checkpoints/00000003")
    with pytest.raises(DamagedFileError, match=r"its last checkpoint .*00000003 is missing"):
        newest_intact(run.path, lambda text: None)
