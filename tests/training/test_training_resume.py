"""Law 7: the same weights whatever the number of loader workers, and also when killed anywhere and resumed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_runs
import torch
from tiny_runs import (
    EVERYTHING,
    ON_A_GPU,
    SETTINGS,
    CrashError,
    changed,
    crash_at,
    metrics_of,
    scores_of,
    signal_at,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)

from spgsurgeon.checkpoint.sealing import sealed
from spgsurgeon.errors import DamagedFileError
from spgsurgeon.recipe.training_section import CheckpointSection
from spgsurgeon.runtime.reproducibility import deterministic_algorithms
from spgsurgeon.runtime.signals import InterruptedRunError
from spgsurgeon.training.loop import Retraining

PLACES = {
    "the first step": 1,
    "within a cold epoch": 2,
    "a cold epoch's end": 3,
    "within the second cold epoch": 5,
    "the cold start's end": 6,
    "within an epoch": 8,
    "an epoch's end": 9,
    "the last step": 12,
}


class Finished(NamedTuple):
    weights: str
    metrics: list[dict[str, Any]]
    scores: list[dict[str, float]]


def finished(path: Path, retraining: Retraining) -> Finished:
    return Finished(weights_hash(retraining), metrics_of(path), scores_of(retraining))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    path = tmp_path_factory.mktemp("uninterrupted") / "run"
    result = finished(path, train(tiny_retraining(EVERYTHING, path=path)))
    assert [line["phase"] for line in result.metrics] == ["cold", "cold", "train", "train"]
    assert result.metrics[-1]["step"] == 12
    return result


def resumed(path: Path, settings: Any = EVERYTHING, progress: Any = None) -> Retraining:
    """Return a run that has gone back to its checkpoint; what it was made of is another model, so nothing is left."""
    retraining = tiny_retraining(settings, path=path, grafted=tiny_grafted(seed=99), progress=progress)
    assert retraining.resume()
    return retraining


def test_workers_do_not_matter(uninterrupted: Finished, tmp_path: Path) -> None:
    retraining = train(tiny_retraining(EVERYTHING, path=tmp_path / "run", workers=2))
    assert finished(tmp_path / "run", retraining) == uninterrupted


def test_the_seed_matters(uninterrupted: Finished) -> None:
    assert weights_hash(train(tiny_retraining(changed(EVERYTHING, seed=1)))) != uninterrupted.weights


@pytest.mark.parametrize("step", PLACES.values(), ids=PLACES)
def test_stopped_by_a_signal(uninterrupted: Finished, tmp_path: Path, step: int) -> None:
    path, number = tmp_path / "run", (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)[step % 3]
    with pytest.raises(InterruptedRunError, match=f"after step {step}$") as caught:
        train(tiny_retraining(EVERYTHING, path=path, progress=signal_at(step, number)))
    assert caught.value.exit_code == 128 + number
    assert (path / "last").resolve().name.startswith(f"{step:08d}")
    assert finished(path, train(resumed(path))) == uninterrupted


@pytest.mark.parametrize("step", PLACES.values(), ids=PLACES)
def test_crashed(uninterrupted: Finished, tmp_path: Path, step: int) -> None:
    path, settings = tmp_path / "run", changed(EVERYTHING, checkpoints=CheckpointSection(steps=2 if step % 2 else None))
    with pytest.raises(CrashError):
        train(tiny_retraining(settings, path=path, progress=crash_at(step)))
    assert finished(path, train(resumed(path, settings))) == uninterrupted


@pytest.mark.parametrize("step", [3, 4, 5, 9, 15, 16])
def test_crashed_with_the_last_batch_kept(tmp_path: Path, step: int) -> None:
    """Of 26 samples: three steps of two batches and one of a batch of two, two epochs cold and two after them."""
    settings = changed(EVERYTHING, drop_last=False, checkpoints=CheckpointSection(steps=2 if step % 2 else None))
    whole, path = tmp_path / "whole", tmp_path / "run"
    expected = finished(whole, train(tiny_retraining(settings, path=whole, samples=26)))
    assert expected.metrics[-1]["step"] == 16
    with pytest.raises(CrashError):
        train(tiny_retraining(settings, path=path, samples=26, progress=crash_at(step)))
    again = tiny_retraining(settings, path=path, samples=26, grafted=tiny_grafted(seed=99))
    assert finished(path, train(again, resume=True)) == expected


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_crashed_on_a_gpu(tmp_path: Path, optimizer: str, precision: str) -> None:
    settings = changed(
        EVERYTHING, precision=precision, optimizer=changed(EVERYTHING.training.optimizer, name=optimizer)
    )
    options: dict[str, Any] = {"processes": ON_A_GPU, "workers": 1}
    with deterministic_algorithms(True):
        whole, path = tmp_path / "whole", tmp_path / "run"
        expected = finished(whole, train(tiny_retraining(settings, path=whole, **options)))
        with pytest.raises(CrashError):
            train(tiny_retraining(settings, path=path, progress=crash_at(8), **options))
        grafted = tiny_grafted(seed=99)
        assert (
            finished(path, train(tiny_retraining(settings, path=path, grafted=grafted, **options), resume=True))
            == expected
        )


def test_crashed_again_and_again(uninterrupted: Finished, tmp_path: Path) -> None:
    path, settings = tmp_path / "run", changed(EVERYTHING, checkpoints=CheckpointSection(steps=1))
    with pytest.raises(CrashError):
        train(tiny_retraining(settings, path=path, progress=crash_at(2)))
    for step in (4, 6, 7, 9, 10, 12):
        retraining = resumed(path, settings, progress=crash_at(step))
        with pytest.raises(CrashError):
            train(retraining)
    assert finished(path, train(resumed(path, settings))) == uninterrupted


def test_crashed_before_the_checkpoint_of_a_finished_epoch(uninterrupted: Finished, tmp_path: Path) -> None:
    path = tmp_path / "run"
    retraining = tiny_retraining(EVERYTHING, path=path)
    assert retraining.run_folder
    save = retraining.run_folder.save

    def crash_after_the_metrics(name: str, *arguments: Any, **options: Any) -> None:
        if name == "00000009":
            raise CrashError
        save(name, *arguments, **options)

    retraining.run_folder.save = crash_after_the_metrics
    with pytest.raises(CrashError):
        train(retraining)
    assert len(metrics_of(path)) == 3  # the third epoch's line is there, its checkpoint is not
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "ph')  # as a full disk leaves it
    assert finished(path, train(resumed(path))) == uninterrupted


def leave_out_optimizer(retraining: Retraining) -> None:
    retraining.optimizer.state.clear()


def leave_out_ema(retraining: Retraining) -> None:
    assert retraining.state.ema
    retraining.state.ema.set(retraining.grafted)


def leave_out_step(retraining: Retraining) -> None:
    retraining.counters.step = 0


def leave_out_update(retraining: Retraining) -> None:
    retraining.counters.update = 0


def leave_out_batch(retraining: Retraining) -> None:
    retraining.counters.batch = 0


def leave_out_epoch(retraining: Retraining) -> None:
    retraining.counters.epoch -= 1


def leave_out_replicas(retraining: Retraining) -> None:
    for parameter in retraining.grafted.replicas.parameters():
        parameter.data.zero_()


@pytest.mark.parametrize(
    "leave_out",
    [
        leave_out_optimizer,
        leave_out_ema,
        leave_out_step,
        leave_out_update,
        leave_out_batch,
        leave_out_epoch,
        leave_out_replicas,
    ],
)
def test_each_restored_part_matters_to_the_weights(uninterrupted: Finished, tmp_path: Path, leave_out: Any) -> None:
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(EVERYTHING, path=tmp_path / "run", progress=signal_at(8)))
    retraining = resumed(tmp_path / "run")
    leave_out(retraining)
    assert weights_hash(train(retraining)) != uninterrupted.weights


@pytest.mark.parametrize("part", ["statistics", "moments"])
def test_each_restored_part_matters_to_the_metrics(uninterrupted: Finished, tmp_path: Path, part: str) -> None:
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(EVERYTHING, path=tmp_path / "run", progress=signal_at(5)))
    retraining = resumed(tmp_path / "run")
    setattr(retraining.state if part == "moments" else retraining.counters, part, None)
    result = finished(tmp_path / "run", train(retraining))
    assert result.weights == uninterrupted.weights
    assert result.metrics != uninterrupted.metrics


@pytest.mark.parametrize("name", ["momentum", "lamb", "lion"])
def test_other_optimizers(tmp_path: Path, name: str) -> None:
    settings = changed(SETTINGS, optimizer=changed(SETTINGS.training.optimizer, name=name, lr=0.01))
    whole = weights_hash(train(tiny_retraining(settings)))
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(settings, path=tmp_path / "run", progress=signal_at(4)))
    assert weights_hash(train(resumed(tmp_path / "run", settings))) == whole


@pytest.mark.slow
def test_a_compiled_run(tmp_path: Path) -> None:
    settings = changed(EVERYTHING, compile=True)
    whole = weights_hash(train(tiny_retraining(settings)))
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(settings, path=tmp_path / "run", progress=signal_at(5)))
    assert weights_hash(train(resumed(tmp_path / "run", settings))) == whole


def test_a_finished_run_stays_as_it_is(uninterrupted: Finished, tmp_path: Path) -> None:
    train(tiny_retraining(EVERYTHING, path=tmp_path / "run"))
    watcher = tiny_runs.Watcher()
    assert finished(tmp_path / "run", train(resumed(tmp_path / "run", progress=watcher))) == uninterrupted
    assert watcher.lines == []


def test_nothing_to_resume(tmp_path: Path) -> None:
    assert not tiny_retraining(path=tmp_path / "run").resume()
    assert not tiny_retraining().resume()


def test_progress_counts_the_steps_behind(tmp_path: Path) -> None:
    watcher = signal_at(5)
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(EVERYTHING, path=tmp_path / "run", progress=watcher))
    assert (watcher.steps, watcher.first) == (12, 0)
    watcher = tiny_runs.Watcher()
    train(resumed(tmp_path / "run", progress=watcher))
    assert (watcher.steps, watcher.first, watcher.done) == (12, 5, 12)


def test_another_optimizers_state_is_refused(tmp_path: Path) -> None:
    train(tiny_retraining(SETTINGS, path=tmp_path / "run"))
    state = tmp_path / "run" / "last" / "state.json"
    document = json.loads(state.read_text())
    document["optimizer"]["groups"] *= 2
    state.write_text(json.dumps(sealed(document)))
    with pytest.raises(DamagedFileError, match="of another optimizer"):
        resumed(tmp_path / "run", SETTINGS)


@pytest.mark.slow
def test_killed_processes(uninterrupted: Finished, tmp_path: Path) -> None:
    path = tmp_path / "run"
    for step in (2, 8):  # in the cold start, in the training
        process = subprocess.Popen(
            [sys.executable, tiny_runs.__file__, str(path)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        )
        wait_for_step(path, step, process)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    settings = changed(EVERYTHING, checkpoints=CheckpointSection(steps=1))
    assert finished(path, train(resumed(path, settings))) == uninterrupted


def wait_for_step(path: Path, step: int, process: "subprocess.Popen[bytes]") -> None:
    while not (path / "last").exists() or int((path / "last").resolve().name[:8]) < step:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.01)
