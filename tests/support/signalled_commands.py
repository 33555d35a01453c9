"""Command lines in processes of their own that are sent signals, and what must be true of how they end (Linux)."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leftover_processes import MARK, command_of, marked, seconds_until_gone

ROOT = Path(__file__).parents[2]
TINY_RUN = (
    *("train", "timm/test_resnet", "--random-weights", "--recipe", "digits-dropout", "--json", "-q"),
    *("data.workers=2", "cold_start.epochs=1", "training.checkpoints.steps=3", "training.device=cpu"),
)
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spgsurgeon")
UNHANDLED = frozenset({-signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""What a signal outside the training loop may also end with: before the command line has its handlers, after its last
line, or where it is a second one, which leaves temporary files behind.
"""
HANGS = 600.0  # seconds
ORPHANED = 10.0  # seconds until what is still there does not end by itself


@dataclass(frozen=True)
class Ended:
    """How a command ended. `seconds` since its last signal; `orphans` are command lines that outlived it."""

    code: int
    out: str
    err: str
    seconds: float
    orphans: list[str]

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document that it printed."""
        found: dict[str, Any] = json.loads(self.out)
        return found


class Command:
    """One command line of the package, in a session of its own, whose output goes to files beside `output`."""

    def __init__(
        self, output: Path, *arguments: str, launcher: Sequence[str] = ("-m", "spgsurgeon"), **environment: str
    ) -> None:
        self._mark = secrets.token_hex(8)
        self._streams = [output.with_name(f"{output.name}.{stream}") for stream in ("stdout", "stderr")]
        own = {MARK: self._mark, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
        with self._streams[0].open("w") as out, self._streams[1].open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, *launcher, *arguments, "-o", str(output)],
                env=os.environ | own | environment,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        self._told = time.monotonic()

    def ended_within(self, seconds: float) -> bool:
        """Wait, and return whether it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def tell(self, number: int, *, group: bool = False) -> None:
        """Send it a signal, or its whole process group, loader workers included."""
        self._told = time.monotonic()
        with suppress(ProcessLookupError):
            if group:
                os.killpg(self._process.pid, number)
            else:
                self._process.send_signal(number)

    def children(self) -> list[int]:
        """Return the processes that it started itself and that live."""
        path = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        return [int(child) for child in path.read_text().split()]

    def end(self) -> Ended:
        """Wait for its end, and kill what outlives it."""
        if not self.ended_within(HANGS):
            self._process.kill()
        code = self._process.wait()
        seconds = time.monotonic() - self._told
        gone = seconds_until_gone(lambda: marked(self._mark), ORPHANED)
        orphans = [] if gone is not None else marked(self._mark)
        commands = [f"{process}: {command_of(process)[:200]}" for process in orphans]
        for process in orphans:
            os.kill(process, signal.SIGKILL)
        out, err = (stream.read_text() for stream in self._streams)
        return Ended(code, out, err, seconds, commands)


@dataclass(frozen=True)
class Progress:
    """How far a run is, by its folder: `phase` for people; `handled` is whether it was surely in its training loop."""

    phase: str
    handled: bool


def progress_of(run: Path, starts: int, epochs: int) -> Progress:
    """Return where the run is in the process that is its start number `starts`; it has `epochs`, cold ones included."""
    environment, last = run / "environment.json", run / "last"
    if not environment.exists() or len(json.loads(environment.read_text())["starts"]) < starts:
        return Progress("start-up", False)
    if not last.exists():
        return Progress("first evaluation", False)  # it may be just before the loop
    if share_done(run, epochs) >= 1:
        return Progress("end", False)
    counters = json.loads((last / "state.json").read_text())["counters"]
    return Progress("training" if counters["cold_finished"] else "cold start", True)


def share_done(run: Path, epochs: int) -> float:
    """Return the share of a run's epochs that are in its metrics."""
    metrics = run / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) / epochs if metrics.exists() else 0.0


def starts_of(run: Path) -> int:
    """Return how often a run was started."""
    path = run / "environment.json"
    return len(json.loads(path.read_text())["starts"]) if path.exists() else 0


def faults(ended: Ended, numbers: Sequence[int], *, handled: bool, silent: bool = True) -> list[str]:
    """Return what was wrong with the end of a command that was sent these signals; ending well is right too.

    `handled` is whether it was in its training loop, `silent` whether stderr must be empty, and not only without
    tracebacks.
    """
    allowed = {0, *(128 + number for number in numbers)}
    if not handled or len(numbers) > 1:  # a second one does what it did before the loop
        allowed |= UNHANDLED & {-number for number in numbers}
    found = [] if ended.code in allowed else [f"exit status {ended.code}"]
    if ended.err and (silent or "Traceback" in ended.err):
        found.append(f"on stderr: {ended.err[-2000:]}")
    if ended.out:
        document = ended.document
        if ended.code > 0 and document.get("exit_code", ended.code) != ended.code:
            found.append(f"exit status {ended.code} and the document {ended.out}")
    return found + [f"outlived by {orphan}" for orphan in ended.orphans]
