"""SIGINT and SIGTERM to the real command line: it leaves soon, leaves nothing behind, and the run can go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import succeed
from signalled_commands import TINY_RUN, Command, faults

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
    ("number", "group"), [(signal.SIGINT, False), (signal.SIGTERM, True)], ids=["to the process", "to the group"]
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_stripping_leaves_no_output(whole: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "out"
    command = Command(output, "strip", str(whole), "--export", "safetensors", "--export", "onnx", "--json")
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
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

app.app = command
app.main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (128 + number, "")
