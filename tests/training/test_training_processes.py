"""Law 8: several processes on the joined batch equal one. And what a process does alone: devices, precision."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing
from tiny_runs import (
    EVERYTHING,
    SETTINGS,
    WEIGHTS,
    Watcher,
    free_port,
    metrics_of,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)

from spgsurgeon.errors import UsageError
from spgsurgeon.training.evaluation import evaluate
from spgsurgeon.training.interruption import InterruptedRunError
from spgsurgeon.training.processes import (
    Processes,
    autocast,
    choose_device,
    choose_precision,
    join_processes,
    peak_memory,
)
from spgsurgeon.training.settings import Objective, Optimizer, Settings

CASES = {
    "episode": Objective("episode", WEIGHTS),
    "episode-mean": Objective("episode-mean", WEIGHTS),
    "step": Objective("step", WEIGHTS, label_smoothing=0.1),
    "normalised": Objective("step", WEIGHTS, loss_normalization=True),
    "plain": Objective("step", ()),
}
JOINED = 8
ALONE = Processes(0, 1, torch.device("cpu"))


def settings_for(objective: Objective) -> Settings:
    return replace(SETTINGS, epochs=1, objective=objective, optimizer=Optimizer(lr=0.5, momentum=0.0), accumulate=1)


def after_an_epoch(processes: Processes, objective: Objective, **changes: Any) -> dict[str, Any]:
    """Train without dropout and batch norms, and return what must not depend on the number of processes."""
    grafted = tiny_grafted(rate=0.0, replicas=len(objective.weights), dropout=0.0, norm=False)
    watcher = Watcher()
    train(
        tiny_retraining(
            replace(settings_for(objective), **changes),
            grafted=grafted,
            processes=processes,
            batch_size=JOINED // processes.world_size,
            progress=watcher,
        )
    )
    line = watcher.lines[0]
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
        found["accumulated"] = after_an_epoch(processes, CASES["plain"], accumulate=2)
        found["identity"] = (processes.rank, processes.world_size, processes.leads)
        found["sums"] = [processes.sum(torch.tensor(rank + 1.0)), processes.mean(torch.tensor(rank + 1.0))]
        found["largest"] = [processes.largest(3 + rank), processes.largest(7 - rank)]
        found |= interrupted_and_resumed(processes, folder)
    torch.save(found, folder / f"{rank}.pt")


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
        "scored alone": evaluate(whole.state.ema.module, alone._evaluation, ALONE, torch.float32),
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
    (folder / "port").write_text(str(free_port()))
    torch.multiprocessing.spawn(in_each_process, (folder,), nprocs=2)
    ranks = [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]
    return {"folder": folder, "ranks": ranks}


@pytest.mark.parametrize("case", [*CASES, "accumulated"])
def test_two_processes_on_the_joined_batch_equal_one(found: dict[str, Any], case: str) -> None:
    changes = {"accumulate": 2} if case == "accumulated" else {}
    one = after_an_epoch(ALONE, CASES.get(case, CASES["plain"]), **changes)
    if case in ("episode", "episode-mean", "step", "normalised"):  # or denominators would not depend on the data
        assert 0.1 < one["statistics"]["valid_share"][1] < 0.9
    for two in (found["ranks"][0][case], found["ranks"][1][case]):
        for part in ("weights", "gradients"):
            torch.testing.assert_close(two[part], one[part], rtol=2e-5, atol=2e-7)
        assert two["accepted"] == one["accepted"]
        assert two["scores"] == pytest.approx(one["scores"], rel=1e-5)
        for key, value in one["statistics"].items():
            assert two["statistics"][key] == pytest.approx(value, rel=1e-5)


def test_an_evaluation_counts_each_sample_once(found: dict[str, Any]) -> None:
    assert [rank["step"]["samples"] for rank in found["ranks"]] == [11, 11]
    assert after_an_epoch(ALONE, CASES["plain"])["samples"] == 11


def test_all_processes_score_the_model_that_is_kept(found: dict[str, Any]) -> None:
    kept = found["ranks"][0]["scored alone"]
    for rank in found["ranks"]:
        assert rank["last scores"]["loss"] == pytest.approx(kept["loss"], rel=1e-6)


def test_what_processes_do_together(found: dict[str, Any]) -> None:
    assert [rank["identity"] for rank in found["ranks"]] == [(0, 2, True), (1, 2, False)]
    assert [[s.item() for s in rank["sums"]] for rank in found["ranks"]] == [[3.0, 1.5]] * 2
    assert [rank["largest"] for rank in found["ranks"]] == [[4, 7]] * 2


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
    assert other["files"] == ["recipe.yaml"]  # made by the test itself


def test_one_process_needs_no_group() -> None:
    with join_processes("cpu") as processes:
        assert processes == ALONE
        assert processes.sum(torch.tensor(2.0)) == processes.mean(torch.tensor(2.0)) == 2.0
        assert processes.largest(3) == 3
        assert not torch.distributed.is_initialized()


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


@pytest.mark.slow
def test_torchrun(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port"]
    command += [str(free_port()), "-m", "spgsurgeon", "train", "timm/test_resnet", "--random-weights", "--json"]
    command += ["--recipe", "digits-dropout", "training.epochs=1", "training.batch_size=100", "training.device=cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [*command, "-o", str(tmp_path / "run")], env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)  # one document, of the first process
    assert document["steps"] == 3
    assert document["last"]["samples"] == 500
    assert len(metrics_of(tmp_path / "run")) == 1
