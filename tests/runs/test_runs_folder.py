"""The folder of a run: what is in it, where its links point, and what damage and full disks do to it."""

import errno
import json
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import EVERYTHING, SETTINGS, changed, tiny_grafted, tiny_retraining, tiny_run_folder, train, weights_hash

from spgsurgeon.checkpoint import writing
from spgsurgeon.checkpoint.folders import read_grafted_folder
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.runs.checkpoints import recipe_of
from spgsurgeon.runs.folder import Checkpoint, RunFolder


def checkpoint(value: float = 0.0, **extras: Any) -> Checkpoint:
    tensors = {"weight": torch.full((3,), value)}
    return Checkpoint(base=tensors, temporary=tensors, optimizer=tensors, state={"value": value}, **extras)


def names(run: RunFolder) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return tiny_run_folder(tmp_path / "run")


def test_a_whole_run_can_be_read_back(tmp_path: Path) -> None:
    path = tmp_path / "run"
    retraining = train(tiny_retraining(EVERYTHING, path=path))
    assert recipe_of(path) == "model: tiny\n"
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    numbers = [(line["phase"], line["epoch"]) for line in lines]
    assert numbers == [("cold", 1), ("cold", 2), ("train", 1), ("train", 2)]
    assert lines[-1]["evaluation"] == retraining.counters.last
    folder = read_grafted_folder((path / "last").resolve())
    assert content_hash(read_safetensors(folder.base_weights)[0]) == content_hash(retraining.grafted.base.state_dict())
    assert retraining.run_folder
    assert retraining.state.ema
    best = read_safetensors(path / "best" / "ema.safetensors")[0]
    assert retraining.run_folder.best_content_hash() == content_hash(best)
    assert best.keys() == retraining.grafted.base.state_dict().keys()


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    path = tmp_path / "run"
    train(tiny_retraining(EVERYTHING, path=path))
    board = EventAccumulator(str(path / "tensorboard"))
    board.Reload()
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    scores = [(event.step, event.value) for event in board.Scalars("evaluation/top1")]
    assert scores[0][0] == 0, "the original's"
    assert scores[1:] == [(line["step"], pytest.approx(line["evaluation"]["top1"])) for line in lines[2:]]
    losses = board.Scalars("step_loss")
    assert [event.step for event in losses] == list(range(1, lines[-1]["step"] + 1))
    first = [event.value for event in losses if event.step <= lines[0]["step"]]
    assert sum(first) / len(first) == pytest.approx(lines[0]["loss"], rel=0.05), "batches differ in size"
    assert {"epoch", "step"}.isdisjoint(board.Tags()["scalars"])
    drift = [event.value for event in board.Scalars("moments/first_cosine")]
    assert drift == [pytest.approx(lines[1]["moments"]["first_cosine"])]
    shares = [event.value for event in board.Scalars("valid_share/2")]
    assert shares == [pytest.approx(line["valid_share"][2]) for line in lines]


def test_tensorboard_hides_what_a_resumed_run_repeats(run: RunFolder) -> None:
    for step, value in ((9, 1.0), (18, 2.0)):
        run.add_metrics({"step": step, "loss": value})
    run.close()
    (older,) = (run.path / "tensorboard").iterdir()
    older.rename(older.with_name("events.out.tfevents.1"))  # files go by the second in their name
    again = tiny_run_folder(run.path)
    again.add_metrics({"step": 18, "loss": 3.0})
    again.close()
    board = EventAccumulator(str(run.path / "tensorboard"))
    board.Reload()
    assert [(event.step, event.value) for event in board.Scalars("loss")] == [(9, 1.0), (18, 3.0)]


def test_what_its_thread_fails_with_is_said_once(run: RunFolder, capfd: pytest.CaptureFixture[str]) -> None:
    run.add_metrics({"step": 1, "loss": 1.0})
    hook = threading.excepthook
    shutil.rmtree(run.path / "tensorboard")
    with pytest.raises(SurgeonError, match=r"metrics\.jsonl was not written: No such file"):
        run.add_metrics({"step": 2, "loss": 2.0})
    run.add_metrics({"step": 2, "loss": 2.0})
    run.close()
    assert capfd.readouterr() == ("", ""), "and no traceback of TensorBoard's thread"
    assert threading.excepthook is not hook
    assert [json.loads(line)["step"] for line in (run.path / "metrics.jsonl").read_text().splitlines()] == [1, 2]


def test_lines_of_epochs_that_run_again_are_dropped(run: RunFolder) -> None:
    lines = [
        {"phase": phase, "epoch": epoch}
        for phase, epochs in (("head", 1), ("cold", 3), ("train", 2))
        for epoch in (1, 2, 3)[:epochs]
    ]
    damaged = ['{"phase": "train", "epoch": 1', "[]", '{"epoch": 1}', '{"phase": "train", "epoch": null}']
    path = run.path / "metrics.jsonl"
    for *done, kept in ((1, 3, 1, 5), (1, 3, 0, 4), (1, 2, 0, 3), (1, 0, 0, 1), (0, 0, 0, 0)):
        path.write_text("\n".join([*damaged, *map(json.dumps, lines), ""]))
        run.forget_metrics_after(dict(zip(("head", "cold", "train"), done, strict=True)))
        assert path.read_text() == "".join(json.dumps(line) + "\n" for line in lines[:kept])


def test_links_and_pruning(tmp_path: Path) -> None:
    run, seen = tiny_run_folder(tmp_path / "run", keep=1), []
    for name, best in (("0", False), ("1", True), ("2", False), ("3", False), ("4", True)):
        run.save(name, checkpoint(float(name)), best=best)
        seen.append((names(run), (run.path / "last").readlink().name))
        assert not (run.path / "last").readlink().is_absolute()
    assert seen == [(["0"], "0"), (["1"], "1"), (["1", "2"], "2"), (["1", "3"], "3"), (["4"], "4")]
    assert (run.path / "best").resolve() == (run.path / "last").resolve()
    loaded = run.load()
    assert loaded
    assert loaded.state["value"] == 4.0


def test_what_a_kill_left_half_removed_is_removed_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for at in count():
        run, calls = tiny_run_folder(tmp_path / str(at), keep=1), count()
        run.save("0", checkpoint(), best=False)

        def killed(call: Any, *arguments: Any, calls: Any = calls, last: int = at, **options: Any) -> None:
            if next(calls) == last:
                raise KeyboardInterrupt
            call(*arguments, **options)

        with monkeypatch.context() as patch, suppress(KeyboardInterrupt):
            for name in ("unlink", "rmdir"):
                patch.setattr(os, name, partial(killed, getattr(os, name)))
            run.save("1", checkpoint(), best=True)
        if next(calls) <= at:
            break
        run.save("2", checkpoint(), best=True)
        assert names(run) == ["2"], at
    assert at > 5


def test_a_run_can_be_moved(run: RunFolder, tmp_path: Path) -> None:
    run.save("0", checkpoint(), best=True)
    shutil.move(run.path, tmp_path / "elsewhere")
    assert RunFolder(tmp_path / "elsewhere", {}, None).load()  # type: ignore[arg-type]


def test_what_last_names_is_there_at_every_moment(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save("7", checkpoint(1.0), best=False)
    seen = []

    def watched(move: Callable[[Path, Path], None], new: Path, target: Path) -> None:
        seen.append(run.load() is not None and target != (run.path / "last").resolve())
        move(new, target)

    for name in ("_swap", "_rename_new"):
        monkeypatch.setattr(writing, name, partial(watched, getattr(writing, name)))
    for value, best in ((2.0, True), (3.0, False), (4.0, False), (5.0, True)):
        run.save("7", checkpoint(value), best=best)
        loaded = run.load()
        assert loaded
        assert loaded.state["value"] == value
        assert len(names(run)) <= 3
    assert seen == [True] * 4


def test_the_best_epoch_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([50.0, 60.0, 70.0, 70.0])  # the original, then three epochs

    def scored(*_: Any, **__: Any) -> dict[str, float]:
        return {"top1": next(scores), "loss": 1.0, "images_per_second": 1.0}

    monkeypatch.setattr("spgsurgeon.training.loop.evaluate", scored)
    retraining = train(tiny_retraining(changed(SETTINGS, epochs=3), path=tmp_path / "run"))
    assert [(tmp_path / "run" / link).resolve().name for link in ("best", "last")] == ["00000012", "00000018"]
    counters = retraining.counters
    assert [s["top1"] for s in (counters.original, counters.best, counters.last) if s] == [50.0, 70.0, 70.0]
    assert retraining.run_folder
    assert retraining.run_folder.best_content_hash() != content_hash(retraining.grafted.base.state_dict())


FILES = ("model", "temporary", "optimizer", "ema")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("finished") / "run"
    train(tiny_retraining(EVERYTHING, path=path))
    return path


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
def test_damage_is_named(finished: Path, tmp_path: Path, file: str, damage: str) -> None:
    path = tmp_path / "run"
    shutil.copytree(finished, path, symlinks=True)
    damaged = path / "last" / f"{file}.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    if damage == "missing":
        damaged.unlink()
    else:
        damaged.write_bytes(content if damage == "flip" else content[:-3])
    with pytest.raises(DamagedFileError, match=rf"{file}\.safetensors"):
        tiny_retraining(EVERYTHING, path=path).resume()


@pytest.mark.parametrize("damage", ["", "{", "[]"])
def test_damaged_counters_are_named(finished: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "run"
    shutil.copytree(finished, path, symlinks=True)
    (path / "last" / "state.json").write_text(damage)
    with pytest.raises(DamagedFileError, match=r"state\.json"):
        tiny_retraining(EVERYTHING, path=path).resume()


@pytest.mark.parametrize("file", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
def test_a_full_disk_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str) -> None:
    path, write = tmp_path / "run", writing.save_file

    def full_at_the_second_epoch(tensors: Any, target: Path, metadata: Any) -> None:
        if target.name == file and "00000012" in str(target.parent):
            target.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(tensors, target, metadata)

    settings = changed(SETTINGS, ema=0.9)
    with monkeypatch.context() as patch:
        patch.setattr(writing, "save_file", full_at_the_second_epoch)
        with pytest.raises(SurgeonError, match="disk full"):
            train(tiny_retraining(settings, path=path))
    assert names(tiny_run_folder(path)) == ["00000000", "00000006"]
    whole = weights_hash(train(tiny_retraining(settings)))
    resumed = tiny_retraining(settings, path=path, grafted=tiny_grafted(seed=99))
    assert weights_hash(train(resumed, resume=True)) == whole


def test_a_recipe_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no recipe\.yaml"):
        recipe_of(tmp_path)


def test_a_run_is_not_overwritten(run: RunFolder) -> None:
    run.save("0", checkpoint(), best=True)
    with pytest.raises(UsageError, match="exists"):
        run.create("model: other\n")
    assert run.load()
    run.create("model: other\n", force=True)
    assert run.load() is None
    assert recipe_of(run.path) == "model: other\n"


def test_what_goes_with_the_weights_lies_in_every_checkpoint_and_a_change_is_noticed(tmp_path: Path) -> None:
    content = b'{"a":\r\n 1}'
    run = tiny_run_folder(tmp_path / "run", companions={"tokenizer.json": content})
    run.save("00001", checkpoint(1.0), best=True)
    file = (run.path / "best").resolve() / "tokenizer.json"
    assert file.read_bytes() == content
    assert run.load()
    file.write_bytes(content + b" ")
    with pytest.raises(DamagedFileError, match=r"tokenizer\.json"):
        run.load()
