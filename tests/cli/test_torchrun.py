"""Several processes, started by torchrun: who says what, who ends whom, and how a run goes on."""

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import DIGITS, TINY, Outcome, make_image_folder, spgsurgeon
from launches import STEPS, Launch, free_port, launch, torchrun_of_a_test

from spgsurgeon.cli.app import _leave, _Terminated
from spgsurgeon.cli.terminal.console import fail, verbosity
from spgsurgeon.errors import DataError, SurgeonError, UsageError
from spgsurgeon.runtime.distributed import LostProcessError, Processes
from spgsurgeon.training.run import _check_shared

SAID = {  # by rank and local rank of three processes on two machines
    "a usage error": (UsageError("no such thing"), ["error: no such thing", "", "error: no such thing"]),
    "a lost process": (LostProcessError("another"), ["error: another", "", "error: another"]),
    "an image": (DataError("can't use 3"), [f"error: process {rank}: can't use 3" for rank in range(3)]),
    "memory": (SurgeonError("out of it"), [f"error: process {rank}: out of it" for rank in range(3)]),
}


@pytest.mark.parametrize("case", SAID)
@pytest.mark.parametrize("rank", range(3))
def test_who_says_what(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], case: str, rank: int
) -> None:
    for name, value in {"RANK": rank, "LOCAL_RANK": rank % 2, "WORLD_SIZE": 3}.items():
        monkeypatch.setenv(name, str(value))
    error, said = SAID[case]
    for as_json in (False, True):
        monkeypatch.setattr(verbosity, "json", as_json)
        fail(error)
        out, err = capsys.readouterr()
        if as_json and rank == 0:
            assert (json.loads(out)["error"]["message"], err) == (error.message, "")
        else:
            assert (out, err.strip()) == ("", said[rank])


def attempt(*arguments: object) -> Outcome:
    return spgsurgeon("train", *TINY, *DIGITS, "training.batch_size=500", "data.workers=0", *arguments)


def test_an_attempt_goes_on_with_the_run_of_the_one_before(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with torchrun_of_a_test(monkeypatch):
        first = attempt("-o", run, "--json").document
        assert first["notes"] == ["random weights (seed 0)"]
        (run / "mine").touch()
        for force in ((), ("--force",)):
            monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
            second = attempt("-o", run, *force, "--json").document
            assert second["content_hash"] == first["content_hash"]
            assert any(str(run) in note for note in second["notes"])
            assert (run / "mine").exists()


def test_an_attempt_starts_a_run_that_had_no_checkpoint(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with torchrun_of_a_test(monkeypatch, TORCHELASTIC_RESTART_COUNT="1") as store:
        assert attempt("-o", run).code == 0
        for link in ("last", "best"):
            (run / link).unlink()
        shutil.rmtree(run / "checkpoints")
        assert store.check([f"spgsurgeon/{run}"])
        assert attempt("-o", run, "--json").document["steps"] == 1


def test_an_attempt_leaves_the_runs_of_others_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert attempt("-o", run).code == 0
    several = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}
    with torchrun_of_a_test(monkeypatch, TORCHELASTIC_RESTART_COUNT="1", **several):
        refused = attempt("-o", run)  # without waiting for the other one, which is told the same
    assert refused.code == 2
    assert f"{run} exists" in refused.err


def test_processes_that_see_other_folders_are_refused(tmp_path: Path) -> None:
    class Differing(Processes):
        def alike(self, text: str) -> bool:
            return False

    _check_shared(tmp_path, Processes(0, 1, torch.device("cpu")))
    with pytest.raises(UsageError, match="don't see the same folder") as caught:
        _check_shared(tmp_path, Differing(0, 2, torch.device("cpu")))
    assert "all machines share" in str(caught.value.hint)


def test_an_error_on_its_way_out_is_said_before_torchrun_ends_its_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    try:
        raise LostProcessError("another")
    except LostProcessError:
        _leave(signal.SIGTERM, None)  # raises nothing
    with pytest.raises(_Terminated):
        _leave(signal.SIGTERM, None)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The document of a run that nothing happened to."""
    code, out, err = launch(tmp_path_factory.mktemp("whole") / "run").finish()
    assert code == 0, err
    document: dict[str, Any] = json.loads(out)  # one document, of the first process
    assert (document["steps"], document["last"]["samples"]) == (STEPS, 500)
    return document


def two_machines(run: Path, *arguments: str) -> tuple[Launch, Launch]:
    """Start a torchrun for each of two machines, which are one."""
    meeting = ("--rdzv-backend", "c10d", "--rdzv-id", run.name, "--rdzv-endpoint", f"localhost:{free_port()}")
    nodes = ("--nnodes", "2", "--nproc-per-node", "1", *meeting)
    return launch(run, *arguments, torchrun=nodes), launch(run, *arguments, torchrun=nodes)


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_on_two_machines(uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    step = random.randrange(1, STEPS - 1)
    stopped = launch(tmp_path / "run").after(step)
    stopped.agent.send_signal(signal.SIGTERM)
    code, out, _ = stopped.finish()
    assert code != 0
    assert json.loads(out)["error"]["kind"] == "interrupted"
    assert (tmp_path / "run" / "last" / "model.safetensors").is_file()
    ends = [machine.finish() for machine in two_machines(tmp_path / "run", "--resume")]
    assert [code for code, *_ in ends] == [0, 0], ends
    (document,) = (json.loads(out) for _, out, _ in ends if out)
    assert document["content_hash"] == uninterrupted["content_hash"]


@pytest.mark.slow
def test_a_run_whose_processes_are_killed_goes_on(uninterrupted: dict[str, Any], tmp_path: Path) -> None:
    first, second = sorted(random.sample(range(STEPS - 1), 2))
    killed = launch(tmp_path / "run").after(first)
    for process in (killed.agent.pid, *killed.workers()):
        os.kill(process, signal.SIGKILL)
    killed.finish()
    restarts = ("--standalone", "--nproc-per-node", "2", "--max-restarts", "1")
    again = launch(tmp_path / "run", "--resume", torchrun=restarts).after(second)
    os.kill(again.workers()[1], signal.SIGKILL)
    code, out, err = again.finish()
    assert code == 0, err
    lost, end = json.JSONDecoder().raw_decode(out)  # one document an attempt
    assert lost["error"]["kind"] == "lost-process"
    assert json.loads(out[end:])["content_hash"] == uninterrupted["content_hash"]


@pytest.mark.slow
def test_a_process_says_what_it_alone_could_not_do(tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "data", classes=10, each=2)
    (data / "val" / "class0009" / "1.png").write_bytes(b"no image")  # in the second process's part
    of_data = ["data.source=folder", f"data.path={data}", "training.batch_size=5"]
    code, out, err = launch(tmp_path / "run", *of_data).finish()
    assert code != 0
    assert json.loads(out)["error"]["kind"] == "lost-process"
    assert "error: process 1: can't use" in err
    assert "unexpected" not in err
    assert not (tmp_path / "run").exists()
