"""The loop's steps: accumulation, clipping, precision, averages, stopping; and the plan of a run."""

import itertools
import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from attaching import attach, attach_blocks
from PIL import Image
from tiny_runs import (
    CLASSES,
    EVERYTHING,
    SETTINGS,
    CrashError,
    Noise,
    TinyAuxiliary,
    Watcher,
    changed,
    crash_at,
    metrics_of,
    signal_at,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)
from torch import nn

from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.recipe.schema import ColdStartSection, ObjectiveSection
from spgsurgeon.recipe.training_section import CheckpointSection, OptimizerSection, ScheduleSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.replicas.kinds.depth.blocks import ConvolutionalBlock, bottleneck, zero_last
from spgsurgeon.replicas.places import Place
from spgsurgeon.runtime import signals as interruption
from spgsurgeon.runtime.signals import InterruptedRunError, stop_on_signals
from spgsurgeon.training import run as workflow
from spgsurgeon.training.loop import Retraining
from spgsurgeon.training.plan import plan
from spgsurgeon.training.soundness.number_guard import NonFiniteError
from spgsurgeon.training.timing import time_retraining

PLAIN = changed(
    SETTINGS, objective=ObjectiveSection(), optimizer=OptimizerSection(lr=0.1, momentum=0.0, weight_decay=0.0)
)


@pytest.fixture(autouse=True)
def no_worker_and_no_handler_is_left() -> Iterator[None]:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    yield
    assert multiprocessing.active_children() == []
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)] == before


def parameters(retraining: Retraining) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in retraining.grafted.parameters()])


# Steps


def test_accumulated_batches_make_one_large_one() -> None:
    def final(accumulate: int, batch_size: int) -> torch.Tensor:
        grafted = tiny_grafted(rate=0.0, dropout=0.0, norm=False)
        settings = changed(PLAIN, objective=ObjectiveSection(form="episode", weights=(0.0, 0.0)), accumulate=accumulate)
        return parameters(train(tiny_retraining(settings, grafted=grafted, batch_size=batch_size)))

    torch.testing.assert_close(final(1, 8), final(2, 4))
    assert not torch.allclose(final(1, 8), final(1, 4))


def test_batches_that_make_no_whole_step_are_left_out() -> None:
    watcher = Watcher()
    retraining = train(tiny_retraining(changed(SETTINGS, accumulate=4), progress=watcher))
    assert retraining.counters.step == watcher.done == 2
    assert sum(watcher.lines[0]["accepted_units"].values()) == 16


def test_all_samples_of_an_epoch_count_the_same_with_the_last_batch_kept() -> None:
    """22 samples: a step of 8 + 8 and one of 6 are those of batches of 16, whichever way they are made."""

    def final(accumulate: int, batch_size: int) -> tuple[torch.Tensor, int]:
        grafted = tiny_grafted(rate=0.0, dropout=0.0, norm=False)
        objective = ObjectiveSection(form="episode", weights=(0.0, 0.0))
        settings = changed(PLAIN, objective=objective, accumulate=accumulate, drop_last=False)
        retraining = train(tiny_retraining(settings, grafted=grafted, batch_size=batch_size, samples=22))
        return parameters(retraining), retraining.counters.step

    for accumulate, batch_size in ((2, 8), (4, 4), (5, 3)):
        expected = final(1, accumulate * batch_size)
        found = final(accumulate, batch_size)
        torch.testing.assert_close(found[0], expected[0])
        assert found[1] == expected[1] == 4


def test_too_few_batches_to_accumulate() -> None:
    with pytest.raises(UsageError, match="an epoch has 6 batches, fewer than accumulate=7") as caught:
        tiny_retraining(changed(SETTINGS, accumulate=7))
    assert caught.value.hint


@pytest.mark.parametrize("clip", [1e-3, None])
def test_the_gradient_is_clipped(clip: float | None) -> None:
    settings = changed(
        PLAIN, objective=SETTINGS.objective, gradient_clip=clip, schedule=ScheduleSection(name="constant")
    )
    retraining = tiny_retraining(settings)
    seen = [parameters(retraining)]
    retraining.progress = Watcher(lambda _: seen.append(parameters(retraining)))
    train(retraining)
    lengths = torch.stack([(after - before).norm() for before, after in itertools.pairwise(seen)])
    if clip is None:
        assert lengths.min() > 0.1 * 1e-3
    else:
        torch.testing.assert_close(lengths, torch.full((12,), 0.1 * clip), rtol=1e-3, atol=1e-6)


def test_the_average_is_of_training_steps_only() -> None:
    settings = changed(SETTINGS, epochs=1, ema=0.75, cold_start=ColdStartSection(epochs=1, batch_norm="track"))
    retraining = tiny_retraining(settings)
    assert retraining.state.ema
    averaged = retraining.state.ema.module
    expected = {key: value.clone() for key, value in averaged.state_dict().items()}

    def follow(step: int) -> None:
        for key, value in retraining.grafted.state_dict().items() if step > 6 else ():
            expected[key] = 0.75 * expected[key] + 0.25 * value if value.is_floating_point() else value.clone()
        torch.testing.assert_close(dict(averaged.state_dict()), expected)

    retraining.progress = Watcher(follow)
    train(retraining)
    assert retraining.counters.update == 6


def test_scores_are_those_of_the_average() -> None:
    retraining = train(tiny_retraining(changed(SETTINGS, ema=0.9999, epochs=1)))
    counters = retraining.counters
    assert counters.last is not None
    assert counters.original is not None
    assert counters.last["loss"] == pytest.approx(counters.original["loss"], rel=1e-2)
    assert counters.last["loss"] != counters.original["loss"]


@pytest.mark.parametrize(("precision", "dtype"), [("bfloat16", torch.bfloat16), ("float16", torch.float16)])
def test_low_precision_has_float32_weights_and_losses(precision: str, dtype: torch.dtype) -> None:
    seen = set()
    grafted = tiny_grafted()
    grafted.base.head.register_forward_hook(lambda _, inputs, output: seen.add(output.dtype))
    retraining = tiny_retraining(changed(EVERYTHING, precision=precision), grafted=grafted)
    before = parameters(retraining)
    train(retraining)
    assert seen == {dtype}
    assert {p.dtype for p in retraining.grafted.parameters()} == {torch.float32}
    assert not torch.equal(parameters(retraining), before)
    assert retraining.state.scaler.is_enabled() == (precision == "float16")


def test_a_scaled_run_resumes_too(tmp_path: Path) -> None:
    settings = changed(SETTINGS, precision="float16", gradient_clip=1.0)
    whole = train(tiny_retraining(settings))
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(settings, path=tmp_path / "run", progress=signal_at(3)))
    resumed = train(tiny_retraining(settings, path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)
    assert resumed.state.scaler.state_dict() == whole.state.scaler.state_dict()


def tiny_deeper(seed: int = 0) -> GraftedModel:
    """Return a tiny model with replicas of depth after its maps, a batch norm behind them."""
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    base = nn.Sequential(
        body, nn.Conv2d(8, 6, 1), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)
    )
    place = Place("0", "output", width=8, normalisations=("2",))

    def block() -> nn.Module:
        return zero_last(bottleneck(8, body, activated=True), ConvolutionalBlock.last)

    return attach_blocks(base, place, block, replicas=2, blocks=2)


def test_replicas_of_depth_resume_too(tmp_path: Path) -> None:
    settings = changed(EVERYTHING, objective=changed(EVERYTHING.objective, form="episode"))
    whole = train(tiny_retraining(settings, grafted=tiny_deeper()))
    assert weights_hash(whole) != weights_hash(tiny_retraining(settings, grafted=tiny_deeper()))
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(settings, path=tmp_path / "run", grafted=tiny_deeper(), progress=signal_at(3)))
    resumed = train(tiny_retraining(settings, path=tmp_path / "run", grafted=tiny_deeper(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)


@pytest.mark.parametrize("kind", ["dropout", "rollouts", "fixed-dropout", "none"])
def test_auxiliary_outputs_are_further_units_and_resume_too(kind: str, tmp_path: Path) -> None:
    def auxiliary(seed: int = 0) -> GraftedModel:
        torch.manual_seed(seed)
        options = {
            "dropout": {"replicas": 2, "rate": 0.2},
            "rollouts": {"kind": "dropout", "head_batch": "rollouts", "replicas": 2, "rate": 0.2},
            "fixed-dropout": {"rate": 0.2},
        }
        return attach(TinyAuxiliary(), ["head", "auxiliary"], **{"kind": kind, **options.get(kind, {})})

    settings = EVERYTHING if kind in ("dropout", "rollouts") else changed(EVERYTHING, objective=ObjectiveSection())
    watcher = Watcher()
    whole = train(tiny_retraining(settings, grafted=auxiliary(), progress=watcher))
    assert sum(watcher.lines[-1]["accepted_units"].values()) == 2 * 24  # each image once an output
    with pytest.raises(InterruptedRunError):
        train(tiny_retraining(settings, path=tmp_path / "run", grafted=auxiliary(), progress=signal_at(3)))
    resumed = train(tiny_retraining(settings, path=tmp_path / "run", grafted=auxiliary(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)


def test_dropout_goes_by_the_seed_and_the_step() -> None:
    def loss(seed: int, step: int) -> float:
        retraining = tiny_retraining()
        retraining._stepper._settings = changed(SETTINGS.training, seed=seed)  # the order of the images stays
        retraining.counters.step = step
        return retraining.try_batch().loss.item()

    assert loss(0, 0) == loss(0, 0)
    assert len({loss(0, 0), loss(1, 0), loss(0, 1), loss(1, 1)}) == 4


def test_plain_retraining_goes_through_the_same_loop() -> None:
    grafted = tiny_grafted(replicas=0)
    watcher = Watcher()
    train(tiny_retraining(changed(PLAIN, epochs=6), grafted=grafted, progress=watcher))
    assert watcher.lines[-1]["valid_share"] == [1.0]
    assert watcher.lines[-1]["loss"] < watcher.lines[0]["loss"]


def test_without_a_run_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    train(tiny_retraining(EVERYTHING))
    with pytest.raises(InterruptedRunError) as caught:
        train(tiny_retraining(progress=signal_at(1)))
    assert caught.value.hint is None
    assert list(tmp_path.iterdir()) == []


# Stopping


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_the_step(tmp_path: Path, number: int, code: int) -> None:
    watcher = signal_at(3, number)
    with pytest.raises(InterruptedRunError, match=f"{number.name} after step 3") as caught:
        train(tiny_retraining(path=tmp_path / "run", progress=watcher))
    assert caught.value.exit_code == code
    assert "--resume" in str(caught.value.hint)
    assert watcher.done == 3


class LeftAtOnceError(Exception):
    pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_leaves_at_once(number: int) -> None:
    def leave(*_: object) -> None:
        raise LeftAtOnceError

    before = signal.signal(number, leave)
    reached = []

    def twice(step: int) -> None:
        os.kill(os.getpid(), number)
        reached.append("after the first")
        os.kill(os.getpid(), number)
        reached.append("after the second")

    try:
        with pytest.raises(LeftAtOnceError):
            train(tiny_retraining(progress=Watcher(twice)))
        assert signal.getsignal(number) is leave
    finally:
        signal.signal(number, before)
    assert reached == ["after the first"]


@pytest.mark.parametrize("evaluation", [0, 1], ids=["of the original", "of an epoch"])
def test_a_signal_during_an_evaluation(tmp_path: Path, evaluation: int) -> None:
    settings = changed(SETTINGS, ema=0.9)
    whole = train(tiny_retraining(settings, path=tmp_path / "whole"))
    watcher = Watcher()
    stopped = tiny_retraining(settings, path=tmp_path / "run", progress=watcher)
    reached = []

    def stop(picture: int) -> None:
        if watcher.done == 6 * evaluation:
            reached.append(picture)
            signal.raise_signal(signal.SIGTERM)
            reached.append("not left")

    stopped._evaluation._feed._samples.source = Watched(11, stop)
    with pytest.raises(InterruptedRunError, match=f"after step {6 * evaluation}"):
        train(stopped)
    assert reached == [0]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    resumed = train(tiny_retraining(settings, path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")


class Watched(Noise):
    """Calls `at_read` with the number of each image that is read."""

    def __init__(self, count: int, at_read: Callable[[int], None]) -> None:
        super().__init__(count)
        self.at_read = at_read

    def read(self, index: int) -> tuple[Image.Image, int]:
        self.at_read(index)
        return super().read(index)


def test_a_signal_while_waiting_for_data_ends_the_wait(tmp_path: Path) -> None:
    reached: list[Any] = []
    watcher = Watcher()

    def stop(picture: int) -> None:
        if watcher.done == 2:
            reached.append(picture)
            signal.raise_signal(signal.SIGINT)
            reached.append("not left")

    whole = train(tiny_retraining())
    with pytest.raises(InterruptedRunError, match="after step 2"):
        train(tiny_retraining(path=tmp_path / "run", source=Watched(24, stop), progress=watcher))
    assert len(reached) == 1
    resumed = train(tiny_retraining(path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)


def test_another_thread_has_no_handlers() -> None:
    seen: list[Any] = []

    def body() -> None:
        with stop_on_signals() as request:
            seen.append((request.number, signal.getsignal(signal.SIGTERM)))
        train(tiny_retraining(workers=1))
        seen.append("trained")

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(None, signal.SIG_DFL), "trained"]


# Loader workers


class WithAWorker(Noise):
    """Calls `at_read` where a loader worker reads image number 9."""

    def __init__(self, count: int, at_read: Callable[[], None]) -> None:
        super().__init__(count)
        self.at_read = at_read

    def read(self, index: int) -> tuple[Image.Image, int]:
        if index == 9:
            self.at_read()
        return super().read(index)


def terminated_with_its_parent() -> None:
    os.kill(os.getppid(), signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)


def killed() -> None:
    signal.raise_signal(signal.SIGKILL)


def unreadable() -> None:
    raise OSError("picture 9 is damaged")


def evaluating(retraining: Retraining, source: Noise) -> Retraining:
    retraining._evaluation._feed._samples.source = source
    return retraining


@pytest.mark.parametrize("where", ["training", "evaluation"])
def test_a_signal_to_the_whole_group_ends_as_an_interruption(tmp_path: Path, where: str) -> None:
    settings = changed(SETTINGS, accumulate=2, ema=0.9)
    whole = train(tiny_retraining(settings, path=tmp_path / "whole"))
    dying = WithAWorker(24 if where == "training" else 11, terminated_with_its_parent)
    if where == "training":
        stopped = tiny_retraining(settings, path=tmp_path / "run", source=dying, workers=1)
    else:
        stopped = evaluating(tiny_retraining(settings, path=tmp_path / "run", workers=1), dying)
    with pytest.raises(InterruptedRunError) as caught:
        train(stopped)
    assert caught.value.exit_code == 143
    resumed = train(tiny_retraining(settings, path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")


def test_a_dead_worker_is_noticed_between_steps_only() -> None:
    reached = []

    def kill_the_workers(step: int) -> None:
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGKILL)
        time.sleep(0.2)  # torch's own handler would raise here
        reached.append(step)

    retraining = tiny_retraining(samples=200, workers=1, progress=Watcher(kill_the_workers))
    with pytest.raises(SurgeonError, match="a loader worker died"):
        train(retraining)
    assert reached
    assert retraining.counters.step == reached[-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "progress", "error"),
    [
        (WithAWorker(24, unreadable), None, DataError),
        (WithAWorker(24, killed), None, SurgeonError),
        (None, crash_at(2), CrashError),
        (None, signal_at(2), InterruptedRunError),
    ],
)
def test_no_worker_outlives_a_failure(source: Noise | None, progress: Watcher | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        train(tiny_retraining(source=source, progress=progress, workers=2))
    assert multiprocessing.active_children() == []


# The plan


def test_the_plan() -> None:
    settings = changed(EVERYTHING, epochs=4, schedule=ScheduleSection(name="step", every=2, gamma=0.1))
    retraining = tiny_retraining(settings)
    numbers = plan(retraining)
    assert [numbers[key] for key in ("steps_per_epoch", "cold_start_steps", "steps")] == [3, 6, 18]
    assert numbers["learning_rates"] == pytest.approx([3e-3, 3e-3, 3e-4, 3e-4])
    assert numbers["parameters"] == 6 * 3 * 9 + 6 + 12 + 6 * 4 + 4
    assert numbers["temporary_parameters"] == 2 * (6 * 6 + 6)
    memory = numbers["estimated_memory_bytes"]
    assert memory["weights_gradients_moments"] == 16 * (numbers["parameters"] + numbers["temporary_parameters"])
    # the images (4 x 3 x 8 x 8), three maps (4 x 6 x 6 x 6: into the norm, out of the ReLU and the dropout), and
    # small things; no parameters, which are another 1056 bytes
    assert 0 <= memory["activations"] - 4 * 4 * (3 * 64 + 3 * 6 * 36) < 1500
    assert memory["total"] == memory["activations"] + memory["weights_gradients_moments"]
    assert retraining.counters.step == 0


def test_the_plan_agrees_with_the_run() -> None:
    watcher = Watcher()
    retraining = tiny_retraining(EVERYTHING, progress=watcher)
    numbers = plan(retraining)
    train(retraining)
    assert watcher.done == watcher.steps == numbers["steps"]


DIGITS = ("data.workers=1", "training.batch_size=200", "training.epochs=1", "training.device=cpu")


def test_a_dry_run_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    document = workflow.train(
        "timm/test_resnet", recipe="digits-dropout", overrides=DIGITS, random_weights=True, dry_run=True
    )
    assert document["steps"] == 3
    assert multiprocessing.active_children() == []
    assert list(tmp_path.iterdir()) == []


def test_a_run_killed_in_its_first_evaluation_starts_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(**options: Any) -> dict[str, Any]:
        return workflow.train(
            "timm/test_resnet",
            recipe="digits-dropout",
            overrides=DIGITS,
            random_weights=True,
            output=tmp_path / "run",
            **options,
        )

    def die(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt  # nothing is tidied up after it, as after a kill

    for end, leaves in ((crash, False), (die, True)):
        with monkeypatch.context() as patch:
            patch.setattr("spgsurgeon.training.loop.evaluate", end)
            with pytest.raises(KeyboardInterrupt if leaves else CrashError):
                start()
        assert (tmp_path / "run" / "recipe.yaml").exists() == leaves
    assert start(resume=True)["steps"] == 3


def test_a_run_that_diverges_fails_and_keeps_its_checkpoint(tmp_path: Path) -> None:
    settings = changed(SETTINGS, optimizer=changed(SETTINGS.training.optimizer, lr=1e30))
    with pytest.raises(NonFiniteError, match=r"step 2: weight base\.body\.0\.weight is not finite"):
        train(tiny_retraining(settings, path=tmp_path / "run"))
    assert (tmp_path / "run" / "last" / "graft.json").is_file()


def test_resume_finds_the_run_folder_that_was_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options: dict[str, Any] = {"recipe": "digits-dropout", "overrides": DIGITS, "random_weights": True}
    first = workflow.train("timm/test_resnet", **options)
    again = workflow.train("timm/test_resnet", **options, resume=True)
    assert (again["run"], again["content_hash"]) == (first["run"], first["content_hash"])
    with pytest.raises(UsageError, match="exists"):
        workflow.train("timm/test_resnet", **options)


def crash(*_: object, **__: object) -> None:
    raise CrashError


# Images that can't be used


class Damaged(Noise):
    def read(self, index: int) -> tuple[Image.Image, int]:
        if index in (5, 17):
            raise OSError(f"picture {index} is damaged")
        return super().read(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_passes_over_them_counts_and_lists_them(tmp_path: Path, workers: int) -> None:
    def damaged(path: Path, **options: Any) -> Retraining:
        settings = changed(EVERYTHING, checkpoints=CheckpointSection(steps=1))
        source = Damaged(24)
        return tiny_retraining(settings, path=path, source=source, workers=workers, unreadable="skip", **options)

    watcher = Watcher()
    whole = train(damaged(tmp_path / "whole", progress=watcher))
    assert [line["unreadable_pictures"] for line in watcher.lines] == [2] * 4
    assert any("noise 17" in text for text in watcher.warnings)
    assert len(watcher.warnings) <= 2
    listed = json.loads((tmp_path / "whole" / "unreadable.json").read_text())
    assert listed == {"noise 17": "picture 17 is damaged", "noise 5": "picture 5 is damaged"}
    for step in (2, 8):
        with pytest.raises(CrashError):
            train(damaged(tmp_path / "run", progress=crash_at(step)), resume=step > 2)
    resumed = train(damaged(tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    assert json.loads((tmp_path / "run" / "unreadable.json").read_text()) == listed


def test_a_picture_that_only_an_evaluation_meets(tmp_path: Path) -> None:
    watcher = Watcher()
    retraining = tiny_retraining(path=tmp_path / "run", unreadable="skip", progress=watcher)
    train(evaluating(retraining, Damaged(11)))
    assert retraining.counters.original
    assert retraining.counters.original["samples"] == 10
    assert json.loads((tmp_path / "run" / "unreadable.json").read_text()) == {"noise 5": "picture 5 is damaged"}
    assert "noise 5" in watcher.warnings[0]


# At once


def test_a_signal_while_the_first_step_compiles_leaves_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compilers catch every Exception, so what is raised is none."""
    reached: list[str] = []

    def compiling(model: nn.Module) -> Callable[..., Any]:
        def run(images: torch.Tensor) -> Any:
            try:
                signal.raise_signal(signal.SIGTERM)
                reached.append("not left")
            except Exception:
                reached.append("caught")
            return model(images)

        return run

    settings = changed(SETTINGS, compile=True)
    whole = train(tiny_retraining())
    with monkeypatch.context() as patch:
        patch.setattr(torch, "compile", compiling)
        with pytest.raises(InterruptedRunError, match="after step 0") as caught:
            train(tiny_retraining(settings, path=tmp_path / "run"))
    assert caught.value.exit_code == 143
    assert reached == []
    resumed = train(tiny_retraining(path=tmp_path / "run", grafted=tiny_grafted(seed=9)), resume=True)
    assert weights_hash(resumed) == weights_hash(whole)


def test_a_signal_in_a_later_step_lets_it_finish() -> None:
    retraining = tiny_retraining()
    retraining.grafted.base.head.register_forward_hook(
        lambda *_: signal.raise_signal(signal.SIGTERM) if retraining.counters.step == 1 else None
    )
    with pytest.raises(InterruptedRunError, match="after step 2"):
        train(retraining)


def test_torchrun_repeats_a_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "_REPEAT_SECONDS", 10.0)
    with pytest.raises(InterruptedRunError, match="after step 1"):
        train(tiny_retraining(progress=Watcher(lambda _: [signal.raise_signal(signal.SIGINT) for _ in range(3)])))


def test_signals_that_are_ignored_stay_so() -> None:
    """As where a run was started by nohup, or in the background of a script."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        train(tiny_retraining(progress=signal_at(2, signal.SIGINT)))
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_timed_steps_go_on_through_epochs() -> None:
    retraining = tiny_retraining()  # six steps an epoch
    before = weights_hash(retraining)
    try:
        assert time_retraining(retraining, 9) > 0
    finally:
        retraining.close()
    assert retraining.counters.step == 11, "two of them to warm up"
    assert weights_hash(retraining) != before


@pytest.mark.parametrize(("split", "said"), [("train", True), ("test", False)])
def test_scores_of_pictures_that_are_trained_on_are_said_to_be_such(split: str, said: bool) -> None:
    overrides = [f"data.eval={split}", "training.device=cpu"]
    planned = workflow.train(
        "timm/test_resnet", recipe="digits-dropout", overrides=overrides, random_weights=True, dry_run=True
    )
    assert any("the split that is trained on" in note for note in planned["notes"]) is said
