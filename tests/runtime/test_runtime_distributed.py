"""Law 8: several processes on the joined batch equal one. And what a process does alone: devices, precision."""

import json
import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from attaching import attach
from launches import free_port, torchrun_of_a_test
from tiny_gradients import CASES as GRADIENTS
from tiny_gradients import gradients, largest_difference
from tiny_runs import (
    EVERYTHING,
    PREPROCESSING,
    SETTINGS,
    WEIGHTS,
    Noise,
    Tiny,
    Watcher,
    changed,
    metrics_of,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)

from spgsurgeon.checkpoint.ownership import RECORD
from spgsurgeon.data.loading.loader import EvaluationBatches
from spgsurgeon.data.transforms.augmentation import evaluation_transform
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.recipe.schema import ObjectiveSection, Recipe
from spgsurgeon.recipe.start_sections import HeadStartSection
from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.runtime.distributed import (
    LostProcessError,
    Processes,
    autocast,
    choose_device,
    choose_precision,
    forget_peak_memory,
    join_processes,
    peak_memory,
)
from spgsurgeon.runtime.signals import InterruptedRunError
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.training.evaluation import evaluate

CASES = {
    "episode": ObjectiveSection(form="episode", weights=WEIGHTS),
    "episode-mean": ObjectiveSection(form="episode-mean", weights=WEIGHTS),
    "step": ObjectiveSection(form="step", weights=WEIGHTS, label_smoothing=0.1),
    "normalised": ObjectiveSection(form="step", weights=WEIGHTS, loss_normalization=True),
    "plain": ObjectiveSection(form="step", weights=()),
}
AXES = [{"kind": "dropout", "replicas": count, "rate": 0.0} for count in (2, 1)]
"""Of a mesh of two axes, whose projections learn although nothing is dropped: six cells."""
JOINED = 8
FURTHER: dict[str, dict[str, Any]] = {
    "accumulated": {"accumulate": 2},
    "head start": {"head_start": HeadStartSection(epochs=1, lr=0.1)},
    "uneven": {"drop_last": False, "samples": 27},
    "uneven, accumulated": {"drop_last": False, "samples": 29, "accumulate": 3},
}
"""Of plain retraining; 27 samples leave three for the last batch of two processes."""
MESHES = {f"mesh, {form}": CASES[form] for form in ("episode", "episode-mean", "step")}
ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-13}
"""How much two processes may differ from one, relative to the largest entry of a gradient."""
ALONE = Processes(0, 1, torch.device("cpu"))


def settings_for(objective: ObjectiveSection) -> Recipe:
    return changed(
        SETTINGS, epochs=1, objective=objective, optimizer=OptimizerSection(lr=0.5, momentum=0.0), accumulate=1
    )


def tiny_mesh() -> GraftedModel:
    torch.manual_seed(0)
    return attach(Tiny(dropout=0.0, norm=False), "head", "mesh", axes=AXES)


def after_an_epoch(
    processes: Processes,
    objective: ObjectiveSection,
    samples: int = 24,
    grafted: GraftedModel | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """Train without dropout and batch norms, and return what must not depend on the number of processes."""
    grafted = grafted or tiny_grafted(rate=0.0, replicas=len(objective.weights), dropout=0.0, norm=False)
    watcher = Watcher()
    train(
        tiny_retraining(
            changed(settings_for(objective), **changes),
            grafted=grafted,
            processes=processes,
            batch_size=JOINED // processes.world_size,
            samples=samples,
            progress=watcher,
        )
    )
    line = watcher.lines[-1]
    return {
        "weights": dict(grafted.state_dict()),
        "gradients": {name: p.grad for name, p in grafted.named_parameters()},
        "statistics": {key: line[key] for key in ("loss", "step_cross_entropy", "valid_share", "mean_episode_length")},
        "accepted": line["accepted_units"],
        "scores": {key: line["evaluation"][key] for key in ("top1", "top5", "loss")},
        "samples": line["evaluation"]["samples"],
    }


def in_each_process(rank: int, folder: Path) -> None:
    """Run every case on two processes; each writes what it found to a file of its own."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "MASTER_ADDR": "localhost"}
    os.environ["MASTER_PORT"] = (folder / "port").read_text()
    with join_processes("cpu") as processes:
        found: dict[str, Any] = {case: after_an_epoch(processes, objective) for case, objective in CASES.items()}
        found |= {name: after_an_epoch(processes, CASES["plain"], **given) for name, given in FURTHER.items()}
        found |= {name: after_an_epoch(processes, form, grafted=tiny_mesh()) for name, form in MESHES.items()}
        found["identity"] = (processes.rank, processes.world_size, processes.leads)
        found["sums"] = [processes.sum(torch.tensor(rank + 1.0)), processes.mean(torch.tensor(rank + 1.0))]
        found["alike"] = [processes.alike("a name"), processes.alike(f"a name of {rank}")]
        found["of one image"] = scores_of_one_picture(processes)
        found["largest"] = [processes.largest(3 + rank), processes.largest(7 - rank)]
        found["gradients"] = {
            (case, dtype): gradients(processes, dtype=dtype, **given)
            for case, given in GRADIENTS.items()
            for dtype in ROUNDING
        }
        found |= interrupted_and_resumed(processes, folder)
    os.environ["MASTER_PORT"] = (folder / "another port").read_text()
    try:
        with join_processes("cpu") as processes:
            if rank == 1:
                torch.save(found, folder / f"{rank}.pt")
                os._exit(0)
            for _ in range(2):  # what has been sent before the end may still arrive
                processes.wait()
    except LostProcessError as error:
        found["lost"] = (error.exit_code, error.message, error.hint, torch.distributed.is_initialized())
    torch.save(found, folder / f"{rank}.pt")


def scores_of_one_picture(processes: Processes) -> dict[str, Any]:
    share = {"rank": processes.rank, "world_size": processes.world_size}
    batches = EvaluationBatches(Noise(1), evaluation_transform(PREPROCESSING), batch_size=4, workers=0, **share)
    scores = evaluate(tiny_grafted(), batches, processes, torch.float32, CLASSIFICATION)
    return {key: scores[key] for key in ("top1", "top5", "loss", "samples")}


def interrupted_and_resumed(processes: Processes, folder: Path) -> dict[str, Any]:
    """Stop one process after a step in the cold start, go on, and compare; a folder of its own tells who writes."""
    mine = f"rank-{processes.rank}"
    whole = train(tiny_retraining(EVERYTHING, path=folder / "whole" / mine, processes=processes, batch_size=2))
    watcher = Watcher(lambda step: os.kill(os.getpid(), signal.SIGTERM) if processes.rank == 1 and step == 5 else None)
    path = folder / "stopped" / mine
    try:
        train(tiny_retraining(EVERYTHING, path=path, processes=processes, batch_size=2, progress=watcher))
        exit_code = 0
    except InterruptedRunError as error:
        exit_code = error.exit_code
    stopped_after = watcher.done
    shared = folder / "stopped" / "rank-0"
    resumed = tiny_retraining(EVERYTHING, path=shared, processes=processes, batch_size=2, grafted=tiny_grafted(seed=9))
    train(resumed, resume=True)
    assert whole.state.ema
    alone = tiny_retraining(EVERYTHING)
    return {
        "last scores": whole.counters.last,
        "scored alone": evaluate(whole.state.ema.module, alone._evaluation, ALONE, torch.float32, CLASSIFICATION),
        "exit code": exit_code,
        "stopped after": stopped_after,
        "raw weights": [whole.grafted.state_dict(), resumed.grafted.state_dict()],
        "hashes": [weights_hash(whole), weights_hash(resumed)],
        "files": sorted(str(p.relative_to(path)) for p in path.rglob("*")),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the two processes found, by rank, and where they wrote."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "whole").mkdir()
    (folder / "stopped").mkdir()
    for name in ("port", "another port"):
        (folder / name).write_text(str(free_port()))
    torch.multiprocessing.spawn(in_each_process, (folder,), nprocs=2)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
    return {"folder": folder, "ranks": ranks}


@pytest.mark.parametrize("case", [*CASES, *FURTHER, *MESHES])
def test_two_processes_on_the_joined_batch_equal_one(found: dict[str, Any], case: str) -> None:
    one = (
        after_an_epoch(ALONE, MESHES[case], grafted=tiny_mesh())
        if case in MESHES
        else after_an_epoch(ALONE, CASES.get(case, CASES["plain"]), **FURTHER.get(case, {}))
    )
    if case not in ("plain", *FURTHER):  # or denominators would not depend on the data
        assert 0.1 < one["statistics"]["valid_share"][1] < 0.9
    for two in (found["ranks"][0][case], found["ranks"][1][case]):
        for part in ("weights", "gradients"):
            torch.testing.assert_close(two[part], one[part], rtol=2e-5, atol=2e-7)
        assert two["accepted"] == one["accepted"]
        assert two["scores"] == pytest.approx(one["scores"], rel=1e-5)
        for key, value in one["statistics"].items():
            assert two["statistics"][key] == pytest.approx(value, rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("case", GRADIENTS)
def test_two_processes_have_the_gradient_of_one(found: dict[str, Any], case: str, dtype: torch.dtype) -> None:
    """Whatever is ignored on one of them alone."""
    one = gradients(ALONE, dtype=dtype, **GRADIENTS[case])
    assert 0.01 < one["valid share"][2] < one["valid share"][1] < 0.9
    for rank in found["ranks"]:
        two = rank["gradients"][case, dtype]
        assert largest_difference(two["gradients"], one["gradients"]) <= ROUNDING[dtype]
        assert two["valid share"] == pytest.approx(one["valid share"], rel=1e-6)


def test_an_evaluation_counts_each_sample_once(found: dict[str, Any]) -> None:
    assert [rank["step"]["samples"] for rank in found["ranks"]] == [11, 11]
    assert after_an_epoch(ALONE, CASES["plain"])["samples"] == 11
    for rank in found["ranks"]:  # one of which has none
        assert rank["of one image"] == pytest.approx(scores_of_one_picture(ALONE))


def test_all_processes_score_the_model_that_is_kept(found: dict[str, Any]) -> None:
    kept = found["ranks"][0]["scored alone"]
    for rank in found["ranks"]:
        assert rank["last scores"]["loss"] == pytest.approx(kept["loss"], rel=1e-6)


def test_what_processes_do_together(found: dict[str, Any]) -> None:
    assert [rank["identity"] for rank in found["ranks"]] == [(0, 2, True), (1, 2, False)]
    assert [[s.item() for s in rank["sums"]] for rank in found["ranks"]] == [[3.0, 1.5]] * 2
    assert [rank["largest"] for rank in found["ranks"]] == [[4, 7]] * 2
    assert [rank["alike"] for rank in found["ranks"]] == [[True, False]] * 2


def test_a_signal_to_one_process_ends_all_after_the_same_step(found: dict[str, Any]) -> None:
    assert [rank["exit code"] for rank in found["ranks"]] == [143, 143]
    assert [rank["stopped after"] for rank in found["ranks"]] == [5, 5]


def test_two_processes_resume_too(found: dict[str, Any]) -> None:
    leader, other = found["ranks"]
    assert leader["hashes"][0] == leader["hashes"][1]
    for name in dict(tiny_grafted().named_parameters()):  # buffers are the leader's, shared before they are used
        for side in (0, 1):
            assert torch.equal(other["raw weights"][side][name], leader["raw weights"][0][name])
    whole, resumed = (metrics_of(found["folder"] / kind / "rank-0") for kind in ("whole", "stopped"))
    assert [line.pop("accepted_units") for line in resumed] == [line.pop("accepted_units") for line in whole]
    assert json.loads(json.dumps(resumed), parse_float=shortened) == json.loads(
        json.dumps(whole), parse_float=shortened
    )


def shortened(number: str) -> float:
    return float(f"{float(number):.9g}")  # sums over processes are added up in another order


def test_only_the_first_process_writes(found: dict[str, Any]) -> None:
    leader, other = found["ranks"]
    assert "last" in leader["files"]
    assert other["files"] == [RECORD, "recipe.yaml"]  # made by the test itself


def test_a_process_that_has_ended_ends_the_others(found: dict[str, Any]) -> None:
    exit_code, message, hint, still_joined = found["ranks"][0]["lost"]
    assert (exit_code, still_joined) == (1, False)
    assert "another process of this run has ended" in message
    assert re.fullmatch(r"what torch.distributed says: (Connection closed|Read error).*peer[^/]*", hint)


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[/gloo/transport/tcp/pair.cc:5] Connection closed by peer [1.2.3.4]:5. This is typical."), True),
        (RuntimeError("[/gloo/transport/tcp/unbound_buffer.cc:7] Timed out waiting 5ms for recv operation"), True),
        (torch.distributed.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (RuntimeError("[/gloo/transport/tcp/pair.cc:4] op.preamble.length <= op.nbytes. 8 vs 4"), False),
        (RuntimeError("Timed out waiting for something else"), False),
        (SurgeonError("can't use noise 3"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_what_tells_of_a_lost_process(group_of_one: None, error: BaseException, lost: bool) -> None:
    with pytest.raises(LostProcessError if lost else type(error)) as caught, join_processes("cpu"):
        raise error
    assert (caught.value is error) is not lost
    assert not torch.distributed.is_initialized()


@pytest.fixture
def group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `join_processes` believe in a second process, and join a group without it."""
    for name, value in {
        "RANK": 0,
        "LOCAL_RANK": 0,
        "WORLD_SIZE": 2,
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    store = torch.distributed.HashStore()
    monkeypatch.setattr(
        "spgsurgeon.runtime.distributed._meet",
        lambda world_size, backend: (
            torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
            or torch.distributed.group.WORLD
        ),
    )


def test_processes_that_do_not_find_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with torchrun_of_a_test(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2"):
        monkeypatch.setattr("spgsurgeon.runtime.distributed.MEETING_TIME", timedelta(seconds=0.2))
        with pytest.raises(LostProcessError, match="the 2 processes of this run did not find each other"):
            join_processes("cpu").__enter__()


def test_an_attempt_does_not_see_the_addresses_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with torchrun_of_a_test(monkeypatch, RANK="0", LOCAL_RANK="0", WORLD_SIZE="2") as store:
        monkeypatch.setattr("spgsurgeon.runtime.distributed.MEETING_TIME", timedelta(seconds=0.2))
        for attempt in ("0", "1"):
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", attempt)
            with pytest.raises(LostProcessError):
                join_processes("cpu").__enter__()
            assert store.check([f"attempt-{attempt}/here-0"])
            store.set(f"attempt-{attempt}/here-1", "")


def test_several_processes_need_an_environment_and_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(UsageError, match="WORLD_SIZE=4, but no RANK, LOCAL_RANK, MASTER_ADDR, MASTER_PORT") as caught:
        join_processes("cpu").__enter__()
    assert "unset WORLD_SIZE" in str(caught.value.hint)
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match="4 processes, and 2 CUDA devices here"):
        join_processes("cuda").__enter__()


def test_one_process_needs_no_group() -> None:
    with join_processes("cpu") as processes:
        assert processes == ALONE
        assert processes.sum(torch.tensor(2.0)) == processes.mean(torch.tensor(2.0)) == 2.0
        assert processes.largest(3) == 3
        assert not torch.distributed.is_initialized()


def test_the_device_of_one_process_is_torchs_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pinned memory, for one, would take a context on device 0 otherwise."""
    current: list[torch.device] = []

    @contextmanager
    def switch(device: torch.device) -> Iterator[None]:
        current.append(device)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", switch)
    with join_processes("cuda:1") as processes:
        assert current == [processes.device] == [torch.device("cuda", 1)]
    with join_processes("cpu"):
        assert current == []


def test_a_runs_peak_of_memory_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several may run one after the other in a process, as those of a comparison do on a GPU."""
    forgotten: list[torch.device] = []
    device = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", forgotten.append)
    monkeypatch.setattr("spgsurgeon.training.loop.forget_peak_memory", lambda _: forget_peak_memory(device))
    train(tiny_retraining())
    assert forgotten == [device]


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == torch.device("cpu")
    for missing in ("cuda", "cuda:0", "mps"):
        with pytest.raises(UsageError, match=f"no device '{missing}' here") as caught:
            choose_device(missing)
        assert "auto" in str(caught.value.hint)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("auto") == torch.device("cuda")
    assert choose_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(UsageError, match="'cuda:2'"):
        choose_device("cuda:2")


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == torch.float32
    assert choose_precision("float16", cpu) == torch.float16
    for precision in (torch.float32, torch.bfloat16):
        with autocast(cpu, precision):
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == precision


def test_peak_memory_is_in_bytes() -> None:
    assert 2**25 < peak_memory(torch.device("cpu")) < 2**36
