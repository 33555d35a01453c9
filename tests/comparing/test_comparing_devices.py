"""Where the runs of a comparison are placed, on devices that are pretended."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from command_line import TINY

from spgsurgeon.commands import compare as command
from spgsurgeon.comparing import devices, pool
from spgsurgeon.comparing.devices import VISIBLE, place
from spgsurgeon.errors import UsageError

ALIKE = ("H200", "H200", "H200")


@pytest.fixture(autouse=True)
def all_visible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VISIBLE, raising=False)


def pretend(monkeypatch: pytest.MonkeyPatch, names: Sequence[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(names))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(names))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: names[index])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (9, 0))


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_each_device_has_a_run_by_default(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ALIKE)
    placed = place(device)
    assert (placed.jobs, placed.devices, placed.visible) == (3, ["cuda:0", "cuda:1", "cuda:2"], ["0", "1", "2"])
    assert placed.notes == []


@pytest.mark.parametrize(
    ("jobs", "devices", "visible"),
    [
        (1, ["cuda:0"], []),
        (2, ["cuda:0", "cuda:1"], ["0", "1"]),
        (5, ["cuda:0", "cuda:1", "cuda:2"], ["0", "1", "2", "0", "1"]),
    ],
)
def test_jobs_take_devices_in_turn(
    jobs: int, devices: list[str], visible: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, ALIKE)
    placed = place("auto", jobs)
    assert (placed.jobs, placed.devices, placed.visible) == (jobs, devices, visible)


def test_devices_are_called_as_this_process_was_given_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "5, GPU-8932f937, 2, 77")  # 77 is not there
    pretend(monkeypatch, ALIKE)
    placed = place("auto")
    assert (placed.devices, placed.visible) == (["cuda:0", "cuda:1", "cuda:2"], ["5", "GPU-8932f937", "2"])


def test_only_devices_of_one_kind_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ("H200", "T4", "H200"))
    placed = place("auto")
    assert (placed.jobs, placed.devices, placed.visible) == (2, ["cuda:0", "cuda:2"], ["0", "2"])
    assert "cuda:1 (T4)" in placed.notes[0]
    assert place("auto", 1).notes == [], "it was not asked for more"
    assert place("auto", 3).visible == ["0", "2", "0"]


def test_a_numbered_device_has_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ALIKE)
    for jobs, found in ((None, 1), (2, 2)):
        placed = place("cuda:1", jobs)
        assert (placed.jobs, placed.devices, placed.visible) == (found, ["cuda:1"], [])
    with pytest.raises(UsageError, match="no device 'cuda:3'"):
        place("cuda:3")


def test_a_cpu_has_a_run_for_each_core(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ALIKE)
    monkeypatch.setattr(devices, "processors", lambda: {"count": 3, "total": 64})
    placed = place("cpu")
    assert (placed.jobs, placed.devices, placed.visible) == (3, ["cpu"], [])


@pytest.mark.parametrize("device", ["auto", "mps"])
def test_an_apple_gpu_has_one_run(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, ())
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    placed = place(device)
    assert (placed.jobs, placed.devices, placed.visible) == (1, ["mps"], [])


class Hired(Exception):  # noqa: N818 - no error: what is asked for has been seen
    pass


def test_compare_hires_as_runs_are_placed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked, said = [], []

    def hire(*arguments: object) -> None:
        asked.append(arguments)
        raise Hired

    pretend(monkeypatch, ("H200", "H200", "T4"))
    monkeypatch.setattr(command, "hire", hire)
    with pytest.raises(Hired):
        command.compare(TINY[0], recipe="digits-dropout", output=tmp_path / "c", say=said.append)
    assert asked == [(2, ["0", "1"])]
    assert ["T4" in text for text in said] == [True]


# In processes. They import the program again, and with it the devices that are not there.

PROGRAM = """
import json, os, sys, time
import torch
from spgsurgeon.comparing import devices, pool

def seen():
    there = os.environ.get("CUDA_VISIBLE_DEVICES")
    return there.split(",") if there else ["0", "1", "2"]

torch.cuda.is_available = lambda: True
torch.cuda.device_count = lambda: len(seen())
torch.cuda.get_device_name = lambda index: "H200"
torch.cuda.get_device_capability = lambda index: (9, 0)
torch.cuda.is_initialized = lambda: sys.argv[1:] == ["used"]

def look(number):
    time.sleep(0.3)
    return os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), torch.cuda.device_count()

if __name__ == "__main__":
    from spgsurgeon.errors import SurgeonError
    placed = devices.place("auto", 3)
    with pool.hire(placed.jobs, placed.visible) as crew:
        try:
            print(json.dumps(list(crew.call(look, [(number,) for number in range(9)]))))
        except SurgeonError as error:
            print(json.dumps(error.code))
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
"""


def run_program(folder: Path, *arguments: str) -> object:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, program, *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


def test_each_process_sees_its_own_device_alone(tmp_path: Path) -> None:
    found = run_program(tmp_path)
    assert isinstance(found, list)
    device_of = {process: device for process, device, _ in found}
    assert len(found) == 9
    assert {count for *_, count in found} == {1}
    assert len(device_of) == len(set(device_of.values())), "no two processes share one"
    assert set(device_of.values()) <= {"0", "1", "2"}
    assert {(process, device) for process, device, _ in found} == set(device_of.items())


@pytest.mark.slow
def test_a_process_that_used_cuda_before_does_no_run(tmp_path: Path) -> None:
    assert run_program(tmp_path, "used") == "device-not-alone"


@pytest.mark.parametrize("busy", [True, False])
def test_the_word_to_leave_ends_calls_only(busy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[int] = []
    monkeypatch.setattr(pool, "_busy", busy)
    monkeypatch.setattr(signal, "raise_signal", raised.append)
    pool._leave(signal.SIGUSR1, None)
    assert raised == [signal.SIGTERM] * busy, "a process that waits may hold the lock that the others wait for"
