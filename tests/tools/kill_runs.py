"""Kill training runs at random moments, resume them, and compare what they come to with runs that nobody killed.

Not a test but a measurement (Linux): `python tests/tools/kill_runs.py --kills 200 --jobs 2 --seed 0`. Kills are
SIGKILLs, to the process alone or to its whole group, loader workers included; checkpoints, workers and what is trained
are drawn. Prints what went wrong and where the kills fell, and leaves with 1 if anything did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # a process with threads must not be forked
sys.path.append(str(Path(__file__).parents[1] / "support"))

import torch
from killable_runs import FORK, KINDS, PHASES, Board, Draw, Kind, start
from leftover_processes import in_group, seconds_until_gone

MOST_KILLS = 6  # of one run
SLOWEST_END = 60.0  # seconds for a run that nobody kills: it hangs
GONE_WITHIN = 3.0  # seconds for what a killed process leaves running; loader workers left to torch take five


@dataclass
class Reference:
    """What a kind of run comes to if nobody kills it, and how long it takes at most."""

    result: Any
    seconds: float


@dataclass
class Report:
    """What a job did. `where` counts kills by phase, and those of them that came while files were written."""

    kills: int = 0
    runs: int = 0
    escaped: int = 0
    """Runs that ended before they could be killed."""
    half_written: int = 0
    """Kills that left a file or folder that was not finished."""
    where: Counter[tuple[str, bool]] = field(default_factory=Counter)
    how: Counter[str] = field(default_factory=Counter)
    slowest_gone: float = 0.0
    failures: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Add another job's."""
        for name in ("kills", "runs", "escaped", "half_written", "where", "how", "failures"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.slowest_gone = max(self.slowest_gone, other.slowest_gone)


class Chain:
    """One run, killed and resumed until it may end."""

    def __init__(self, folder: Path, generator: random.Random, references: dict[str, Reference], kills: int) -> None:
        self._folder, self._generator = folder, generator
        names = list(KINDS)
        self._name = generator.choices(names, [KINDS[name].share for name in names])[0]
        self._kind, self._reference = KINDS[self._name], references[self._name]
        self._draw = Draw(generator.choice((1, 1, 2, 3)), generator.choice((1, 2, 3)), generator.choice((0, 1, 2)))
        self._kills = min(generator.randint(1, MOST_KILLS), kills)
        self._board = Board()
        self._done = 0
        self._places: list[str] = []

    def run(self, report: Report) -> None:
        """Kill the run as often as drawn, let it end, and compare."""
        report.runs += 1
        for _ in range(self._kills):
            if not self._kill(report):
                report.escaped += 1
                break
        else:
            processes = start(self._folder, self._kind, self._draw, self._board)
            self._end(processes, report)
        self._compare(report)

    def _kill(self, report: Report) -> bool:
        """Start and kill; return whether it was there to be killed."""
        processes = start(self._folder, self._kind, self._draw, self._board)
        left = 1 - self._done / self._kind.steps
        delay = self._generator.random() * self._reference.seconds * max(left, 0.3)
        how = self._generator.choice(("the group", "one process"))
        victim = self._generator.choice(processes)
        later = self._generator.random() / 2
        processes[0].join(delay)
        if not all(process.is_alive() for process in processes):
            self._end(processes, report)
            return False
        group = processes[0].pid or 0
        place = (self._board.phase, self._board.writing)
        if how == "the group":
            os.killpg(group, signal.SIGKILL)
        else:
            victim.kill()
            for other in processes:
                other.join(later)  # it may notice by itself; torchrun tells it
                other.terminate()
        gone = seconds_until_gone(lambda: in_group(group), GONE_WITHIN + later)
        for process in processes:
            process.join(1)
        if victim.exitcode != -signal.SIGKILL:
            self._end(processes, report)
            return False
        report.kills += 1
        report.where[place] += 1
        report.how[how if len(processes) == 1 else f"{how} of two"] += 1
        report.half_written += bool(self._leftovers())
        self._done = max(self._done, self._board.step)
        self._places.append(f"{place[0]}{', writing' if place[1] else ''}, step {self._board.step}, {how}")
        if gone is None:
            self._fail(report, f"{len(in_group(group))} processes outlived the killed one")
            os.killpg(group, signal.SIGKILL)
        elif len(processes) == 1:
            report.slowest_gone = max(report.slowest_gone, gone)
        return True

    def _end(self, processes: list[BaseProcess], report: Report) -> None:
        for process in processes:
            process.join(SLOWEST_END)
        codes = [process.exitcode for process in processes]
        if any(codes):
            said = "\n".join(path.read_text()[-3000:] for path in sorted(self._folder.glob("stderr-*")))
            self._fail(report, f"the run ended with {codes}:\n{said}")
        group = processes[0].pid or 0
        if seconds_until_gone(lambda: in_group(group), GONE_WITHIN) is None:
            self._fail(report, f"{len(in_group(group))} processes outlived the run")
        with suppress(ProcessLookupError):
            os.killpg(group, signal.SIGKILL)

    def _compare(self, report: Report) -> None:
        path = self._folder / "result.json"
        found = result_of(path, self._kind) if path.exists() else {}
        for part, expected in self._reference.result.items():
            if found.get(part) != expected:
                self._fail(report, f"other {part}: {found.get(part)} instead of {expected}")
        if leftovers := self._leftovers():
            self._fail(report, f"left behind: {leftovers}")
        checkpoints = len(list((self._folder / "run" / "checkpoints").iterdir()))
        if checkpoints > self._draw.keep + 1:
            self._fail(report, f"{checkpoints} checkpoints were kept")

    def _leftovers(self) -> list[str]:
        return [str(path.relative_to(self._folder)) for path in self._folder.rglob(".*.tmp")]

    def _fail(self, report: Report, text: str) -> None:
        report.failures.append(f"{self._folder.name} ({self._name}, {self._draw}; killed {self._places}): {text}")


def result_of(path: Path, kind: Kind) -> Any:
    """Return a run's result; of several processes nine digits, whose sums are added up in another order."""
    shorten = (lambda number: float(f"{float(number):.9g}")) if kind.processes > 1 else None
    return json.loads(path.read_text(), parse_float=shorten)


def refer(folder: Path) -> dict[str, Reference]:
    """Return the reference of every kind, from runs with the slowest draw."""
    references = {}
    for name, kind in KINDS.items():
        (folder / name).mkdir()
        started = time.monotonic()
        processes = start(folder / name, kind, Draw(every=1, keep=3, workers=2), Board())
        for process in processes:
            process.join(SLOWEST_END)
        assert not any(process.exitcode for process in processes), (folder / name / "stderr-0").read_text()
        references[name] = Reference(result_of(folder / name / "result.json", kind), time.monotonic() - started)
    return references


def work(job: int, kills: int, seed: int, folder: Path, references: dict[str, Reference], outlet: Connection) -> None:
    """Be one of the jobs: kill until there were that many kills."""
    report, generator = Report(), random.Random(f"{seed} {job}")
    while report.kills < kills and len(report.failures) < 20:
        path = folder / f"{job}-{report.runs}"
        path.mkdir()
        before = len(report.failures)
        Chain(path, generator, references, kills - report.kills).run(report)
        for failure in report.failures[before:]:
            print(failure, flush=True)
    outlet.send(report)


def main() -> int:
    """Kill as often as was asked for, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    begun, total = time.monotonic(), Report()
    with tempfile.TemporaryDirectory() as folder:
        references = refer(Path(folder))
        jobs = []
        for job in range(arguments.jobs):
            inlet, outlet = FORK.Pipe(duplex=False)
            share = len(range(job, arguments.kills, arguments.jobs))
            process = FORK.Process(target=work, args=(job, share, arguments.seed, Path(folder), references, outlet))
            process.start()
            outlet.close()  # so that the end of the job ends it
            jobs.append((process, inlet))
        for process, inlet in jobs:
            with suppress(EOFError):
                total.add(inlet.recv())
            process.join()
    summarize(total, time.monotonic() - begun)
    return int(bool(total.failures) or total.kills < arguments.kills)


def summarize(report: Report, seconds: float) -> None:
    """Print what was done."""
    print(f"{'killed in':<12} {'kills':>5} {'while writing':>14}")
    for phase in PHASES:
        writing, idle = report.where[phase, True], report.where[phase, False]
        print(f"{phase:<12} {writing + idle:>5} {writing:>14}")
    print(", ".join(f"{count} of {how}" for how, count in sorted(report.how.items())))
    print(f"{report.half_written} kills left something half written")
    print(f"slowest end of what a killed process left running: {report.slowest_gone:.2f} s")
    print(f"{report.runs} runs, {report.escaped} of which ended before their next kill, {seconds:.0f} s")
    print(f"{report.kills} kills, {len(report.failures)} failures")


if __name__ == "__main__":
    sys.exit(main())
