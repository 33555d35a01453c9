"""What torchrun gives its processes, and torchrun itself."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch.distributed import Store, TCPStore

TRAINING = (
    *("timm/test_resnet", "--random-weights", "--recipe", "digits-dropout"),
    *("training.epochs=1", "training.batch_size=50", "training.ema=0.9", "training.checkpoints.steps=1"),
    *("training.device=cpu", "data.workers=0"),
)
STEPS = 6
"""Of `TRAINING` by two processes; there is a checkpoint after each."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def torchrun_of_a_test(monkeypatch: pytest.MonkeyPatch, **environment: str) -> Iterator[Store]:
    """Give this process the environment of a job, and yield the store that torchrun keeps of one."""
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    given = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(store.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in (given | {"TORCHELASTIC_RESTART_COUNT": "0", "WORLD_SIZE": "1"} | environment).items():
        monkeypatch.setenv(name, value)
    yield store


def launch(run: Path, *arguments: str, torchrun: tuple[str, ...] = ("--standalone", "--nproc-per-node", "2")) -> Launch:
    """Start `train` into `run` by torchrun."""
    command = [sys.executable, "-m", "torch.distributed.run", *torchrun, "-m", "spgsurgeon", "train", *TRAINING]
    return Launch([*command, "--json", "-o", str(run), *arguments], run)


class Launch:
    """A torchrun in the background. Its output goes to files: nobody reads a pipe meanwhile."""

    def __init__(self, command: list[str], run: Path) -> None:
        self.run = run
        number = len(list(run.parent.glob(f"{run.name}.*.out")))
        self._out, self._err = (run.with_name(f"{run.name}.{number}.{stream}") for stream in ("out", "err"))
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        with self._out.open("w") as out, self._err.open("w") as err:
            self.agent = subprocess.Popen(command, env=environment, stdout=out, stderr=err)

    def workers(self) -> list[int]:
        """Return the ids of the processes that train, by rank."""
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
        pairs = [line.split() for line in listed.splitlines()]
        return sorted(int(process) for process, parent in pairs if int(parent) == self.agent.pid)

    def after(self, step: int) -> Launch:
        """Wait for the checkpoint of that step."""
        while not (self.run / "last").exists() or int((self.run / "last").resolve().name[:8]) < step:
            assert self.agent.poll() is None, self.finish()
            time.sleep(0.01)
        return self

    def finish(self) -> tuple[int, str, str]:
        """Return the exit code and what was said, on stdout and on stderr."""
        code = self.agent.wait(timeout=120)
        return code, self._out.read_text(), self._err.read_text()
