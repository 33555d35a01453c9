"""SIGINT, SIGTERM and SIGHUP to the real command line: it leaves soon, leaves nothing behind, and the run can go on."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from command_line import succeed
from signalled_commands import ROOT, TINY_RUN, Command, faults

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="it finds processes in /proc"),
]
RUN = (*TINY_RUN, "training.epochs=2")


def at(command: Command, reached: Callable[[], bool]) -> None:
    """Wait until something is reached."""
    while not reached():
        assert not command.ended_within(0.02), command.end()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped."""
    path = tmp_path_factory.mktemp("whole") / "run"
    succeed(*RUN, "-o", path)
    return path


def content_hash(run: Path) -> str:
    """Resume a run, in this process, and return what it comes to."""
    found: str = succeed(*RUN, "-o", run, "--resume").document["content_hash"]
    return found


@pytest.mark.parametrize(
    ("number", "group"),
    [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False), (signal.SIGHUP, True)],
    ids=["to the process", "to the group", "hung up", "hung up with the group"],
)
def test_a_signal_in_training(whole: Path, tmp_path: Path, number: int, group: bool) -> None:
    run = tmp_path / "run"
    command = Command(run, *RUN)
    at(command, lambda: (run / "last").exists() and int((run / "last").resolve().name[:8]) >= 3)
    command.tell(number, group=group)
    ended = command.end()
    assert faults(ended, [number], handled=True) == []
    assert ended.code == 128 + number
    assert ended.document["error"]["kind"] == "interrupted"
    assert content_hash(run) == content_hash(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_workers_that_were_stopped_hold_up_nobody(number: int, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = Command(run, *RUN)
    at(command, lambda: (run / "last").exists() and int((run / "last").resolve().name[:8]) >= 3)
    workers = command.children()
    assert len(workers) >= 2
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    command.tell(number)
    ended = command.end()
    assert faults(ended, [number], handled=True) == []
    assert (ended.code, ended.orphans) == (128 + number, [])
    assert ended.seconds < 30, "and not the minute or more until torch gives up on each of them"
    assert content_hash(run) == content_hash(whole)


def test_a_terminal_that_hangs_up_leaves_a_run_that_goes_on(whole: Path, tmp_path: Path) -> None:
    """Its process can't say anything any more: what it writes to the terminal fails."""
    run = tmp_path / "run"
    child, terminal = pty.fork()
    if child == 0:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}
        arguments = [argument for argument in RUN if argument not in ("--json", "-q")]
        os.execve(sys.executable, [sys.executable, "-m", "spgsurgeon", *arguments, "-o", str(run)], environment)
    os.set_blocking(terminal, False)
    while not (run / "last").exists() or int((run / "last").resolve().name[:8]) < 3:
        with suppress(BlockingIOError):
            os.read(terminal, 10_000)  # or its buffer would be full
        time.sleep(0.02)
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 128 + signal.SIGHUP
    assert not (run / ".lock").exists()
    assert content_hash(run) == content_hash(whole)


def test_two_signals_leave_a_run_that_goes_on(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = Command(run, *RUN)
    at(command, lambda: (run / "last").exists())
    for _ in range(2):
        command.tell(signal.SIGINT)
        time.sleep(0.05)
    ended = command.end()
    assert faults(ended, [signal.SIGINT] * 2, handled=True) == []
    assert ended.code == 130
    assert content_hash(run) == content_hash(whole)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_stripping_leaves_no_output(whole: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "out"
    command = Command(output, "strip", str(whole), "--export", "safetensors", "--export", "onnx", "--json", "-q")
    at(command, lambda: any(tmp_path.glob(".out.*.tmp")))
    command.tell(number, group=True)
    while not command.ended_within(0.5):  # Python drops what a handler raises while an object is finalized
        command.tell(number, group=True)
    ended = command.end()
    assert faults(ended, [number], handled=False, silent=False) == []
    assert ended.code != 0
    assert not output.exists()
    if ended.code > 0:
        assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("imported", [True, False])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_an_import_ends_the_process_and_raises_nothing(
    tmp_path: Path, number: signal.Signals, imported: bool
) -> None:
    """Native code that is being imported aborts where an exception comes out of it."""
    (tmp_path / "signalled.py").write_text(f"import os\nos.kill(os.getpid(), {int(number)})\nprint('not left')\n")
    act = "import signalled" if imported else f"import os; os.kill(os.getpid(), {int(number)})"
    code = f"""
import os
import signal
import subprocess
from spgsurgeon.cli import app
signal.signal({int(number)}, app._leave)
try:
    {act}
except BaseException:
    print("raised")
"""
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    expected = (-number, "") if imported else (0, "raised\n")
    assert (done.returncode, done.stdout, done.stderr) == (*expected, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_in_a_finalizer_is_not_lost(number: signal.Signals) -> None:
    """Python drops what is raised there; the command would go on as if nothing had come."""
    code = f"""
import os
import time
from spgsurgeon.cli import app

class Finalized:
    def __del__(self):
        os.kill(os.getpid(), {int(number)})
        time.sleep(0.1)

def command(**settings):
    Finalized()
    time.sleep(5)

app._asked_for = lambda _: command
app.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, "")
