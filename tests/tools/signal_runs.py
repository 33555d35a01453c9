"""Send SIGINT and SIGTERM to the real command line at random moments, resume, and compare with a run left alone.

Not a test but a measurement (Linux): `python tests/tools/signal_runs.py --signals 50 --seed 0`. Signals go to the
process or to its whole group, once or twice; to `train`, compiled, or two processes under torchrun, and to `strip`, as
drawn. Prints what went wrong, where the signals fell and the slowest exits, and leaves with 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "support"))

from command_line import snapshot
from signalled_commands import TINY_RUN, TORCHRUN, Command, faults, progress_of, share_done, starts_of

NUMBERS = (signal.SIGINT, signal.SIGTERM)
MOST_SIGNALS = 4  # of one run
LIMIT = 2.0  # seconds from the signal to the exit, and a step; where processes wait for the cores, longer
LIMIT_OF_TWO = 1.0  # from the second signal
LIMIT_OF_TORCHRUN = 5.0  # which looks after its processes now and then
BETWEEN = 0.3  # seconds from the first signal to the second


@dataclass(frozen=True)
class Kind:
    """Runs that end alike: what to add to the command, and what starts it."""

    name: str
    overrides: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ("-m", "spgsurgeon")
    numbers: tuple[int, ...] = NUMBERS
    epochs: int = 3
    """The cold start's included."""


PLAIN = Kind("train", ("training.epochs=2",))
TWICE = Kind("train-twice", PLAIN.overrides)
# Its name is in the path of the compiler's cache, which must not have a space.
COMPILED = Kind("train-compiled", ("training.epochs=1", "training.compile=true"), epochs=2)
TWO = Kind("torchrun", (*PLAIN.overrides, "training.batch_size=25"), TORCHRUN, numbers=(signal.SIGTERM,))


@dataclass(frozen=True)
class Reference:
    """What a run comes to if nobody stops it, and seconds: until it starts to train, from there to its end, a step."""

    content_hash: str
    start_up: float
    training: float
    step: float


@dataclass
class Report:
    """What was found. `seconds` from signal to exit, by kind and phase."""

    seconds: defaultdict[tuple[str, str], list[float]] = field(default_factory=lambda: defaultdict(list))
    resumed: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def signalled(self) -> int:
        """How many commands were sent a signal."""
        return sum(len(seconds) for seconds in self.seconds.values())

    def fail(self, text: str) -> None:
        """Note what went wrong, and say it."""
        self.failures.append(text)
        print(text, flush=True)


def slowness() -> float:
    """Return how many processes want each core: that much longer everything takes."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def refer(folder: Path, kind: Kind, **environment: str) -> Reference:
    """Run a kind of run to its end."""
    run, started = folder / "run", time.monotonic()
    command = Command(run, *TINY_RUN, *kind.overrides, launcher=kind.launcher, **environment)
    while not starts_of(run) and not command.ended_within(0.01):
        pass
    begun = time.monotonic()
    ended = command.end()
    assert ended.code == 0, ended
    seconds, document = time.monotonic() - begun, ended.document
    return Reference(document["content_hash"], begun - started, seconds, seconds / document["steps"])


class Signalled:
    """One run that is sent signals and resumed until it may end."""

    def __init__(
        self, folder: Path, kind: Kind, reference: Reference, generator: random.Random, report: Report
    ) -> None:
        self._run, self._kind, self._reference = folder / "run", kind, reference
        self._generator, self._report = generator, report
        self._starts = 0

    def go(self, signals: int, *, compiling: Path | None = None, **environment: str) -> None:
        """Send the signals, one a start, let the run end, and compare; `compiling` is an empty cache for the former."""
        while signals:
            own = {"TORCHINDUCTOR_CACHE_DIR": str(compiling)} if compiling else {}
            if self._signal(environment | own):
                break
            signals -= 1
        self._compare(self._start(environment))

    def _start(self, environment: dict[str, str]) -> Command:
        again = ("--resume",) if self._starts else ()
        self._starts += 1
        return Command(self._run, *TINY_RUN, *self._kind.overrides, *again, launcher=self._kind.launcher, **environment)

    def _signal(self, environment: dict[str, str]) -> bool:
        """Start, send a signal at a random moment; return whether the run ended by itself before it."""
        generator, kind, before = self._generator, self._kind, starts_of(self._run)
        number, group = generator.choice(kind.numbers), generator.random() < 0.5 and kind.launcher != TORCHRUN
        in_training = generator.random() < 0.75 or kind is COMPILED
        command = self._start(environment)
        if in_training:
            while starts_of(self._run) == before and not command.ended_within(0.01):
                pass
            delay = generator.random() * self._reference.training * (1 - share_done(self._run, kind.epochs) / 2)
        else:
            delay = generator.random() * self._reference.start_up
        if command.ended_within(delay):
            command.end()
            return True  # what it came to is seen when it is started once more
        progress = progress_of(self._run, before + 1, kind.epochs)
        command.tell(number, group=group)
        numbers = [number]
        if kind is TWICE and not command.ended_within(BETWEEN):
            numbers.append(generator.choice(NUMBERS))
            command.tell(numbers[-1], group=group)
        ended = command.end()
        handled = progress.handled and progress_of(self._run, before + 1, kind.epochs).phase != "end"
        if kind is TWO:  # it says more on stderr than the package does
            found, limit = [*ended.orphans, *([] if ended.code else ["exit status 0"])], LIMIT_OF_TORCHRUN
        else:
            found = faults(ended, numbers, handled=handled, silent=kind is not COMPILED)
            limit = LIMIT + self._reference.step if len(numbers) == 1 else LIMIT_OF_TWO
        if ended.seconds > limit * slowness():
            found.append(f"it took {ended.seconds:.2f} s")
        self._report.seconds[kind.name, progress.phase].append(ended.seconds)
        for text in found:
            names = [signal.Signals(number).name for number in numbers]
            self._report.fail(
                f"{kind.name}, in {progress.phase}, {names} to the {'group' if group else 'process'} "
                f"{delay:.2f} s after {'training began' if in_training else 'the start'}: {text}"
            )
        return False

    def _compare(self, command: Command) -> None:
        ended = command.end()
        self._report.resumed += 1
        if ended.code or ended.document["content_hash"] != self._reference.content_hash:
            self._report.fail(f"{self._kind.name}: resumed, it ended otherwise: {ended}")
        if left := [str(path) for path in self._run.rglob(".*.tmp")]:
            self._report.fail(f"{self._kind.name}: left in the run folder: {left}")


def strip(folder: Path, count: int, generator: random.Random, report: Report) -> None:
    """Send signals to `strip`: what it writes must be there as a whole or not at all."""
    folder.mkdir()
    refer(folder, PLAIN)
    arguments = ("strip", str(folder / "run"), "--export", "onnx", "--export", "safetensors", "--json", "-q")
    started = time.monotonic()
    assert Command(folder / "whole", *arguments).end().code == 0
    seconds, whole = time.monotonic() - started, snapshot(folder / "whole")
    for turn in range(count):
        output = folder / str(turn) / "out"
        output.parent.mkdir()
        number, group, delay = generator.choice(NUMBERS), generator.random() < 0.5, generator.random() * seconds
        command = Command(output, *arguments)
        command.ended_within(delay)
        command.tell(number, group=group)
        ended = command.end()
        report.seconds["strip", "any"].append(ended.seconds)
        found = faults(ended, [number], handled=False)
        if ended.seconds > LIMIT * slowness():
            found.append(f"it took {ended.seconds:.2f} s")
        if output.exists() and snapshot(output).keys() != whole.keys():
            found.append(f"half written: {sorted(snapshot(output))}")
        if ended.code >= 0 and (left := list(output.parent.glob(".*"))):
            found.append(f"left behind: {left}")
        for text in found:
            report.fail(f"strip, {signal.Signals(number).name} after {delay:.2f} of {seconds:.2f} s: {text}")


def send(folder: Path, kind: Kind, count: int, generator: random.Random, report: Report) -> None:
    """Send that many signals to runs of a kind; `reference/run` is one that was left alone."""
    (folder / "reference").mkdir(parents=True)
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")} if kind is COMPILED else {}
    reference = refer(folder / "reference", kind, **cache)
    wanted = report.signalled + count
    while report.signalled < wanted and len(report.failures) < 20:
        own = folder / str(report.resumed)
        own.mkdir()
        signals = 1 if kind is COMPILED else generator.randint(1, min(MOST_SIGNALS, wanted - report.signalled))
        compiling = own / "cache" if kind is COMPILED else None
        Signalled(own, kind, reference, generator, report).go(signals, compiling=compiling, **cache)


def main() -> int:
    """Send as many signals as were asked for, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signals", type=int, default=50, help="All of them.")
    parser.add_argument("--twice", type=int, default=5, help="Of them: commands that are sent a second one.")
    parser.add_argument("--torchrun", type=int, default=3, help="Of them: to torchrun, with two processes.")
    parser.add_argument("--compiled", type=int, default=0, help="Of them: to compiled runs; minutes each.")
    parser.add_argument("--strip", type=int, default=6, help="Of them: to `strip`.")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts = {TWICE: given.twice, TWO: given.torchrun, COMPILED: given.compiled}
    counts = {PLAIN: given.signals - given.strip - sum(counts.values()), **counts}
    report, generator, begun = Report(), random.Random(given.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for kind, count in counts.items():
            if count > 0:
                send(Path(folder, kind.name), kind, count, generator, report)
        if given.strip:
            strip(Path(folder, "strip"), given.strip, generator, report)
    summarize(report, time.monotonic() - begun)
    return int(bool(report.failures))


def summarize(report: Report, seconds: float) -> None:
    """Print where the signals fell, and how long commands took to leave."""
    print(f"{'command':<16} {'signalled in':<17} {'times':>5} {'slowest exit':>13} {'median':>7}")
    for (kind, phase), values in sorted(report.seconds.items()):
        slowest, median = max(values), statistics.median(values)
        print(f"{kind:<16} {phase:<17} {len(values):>5} {slowest:>11.2f} s {median:>5.2f} s")
    print(f"{report.resumed} runs went on to their end, {seconds:.0f} s in all; {slowness():.1f} processes a core")
    print(f"{report.signalled} signalled commands, {len(report.failures)} failures")


if __name__ == "__main__":
    sys.exit(main())
