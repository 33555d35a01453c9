"""Change values in the JSON documents of folders at random, seal them anew, and let the commands read them.

Not a test but a search: `python tests/tools/fuzz_documents.py --cases 500 --seed 0`. A value becomes another type, a
number out of all bounds, a text that steers terminals, a list a hundred times as long; keys go and come. Every command
must end with an exit code of its own and a message: no "unexpected", no traceback, no loader's worker, no hang, no
gigabytes. Prints what went wrong and counts, and leaves with 1 if anything did.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "support"))

from command_line import TINY, Outcome, make_image_folder, spgsurgeon, succeed

from spgsurgeon.checkpoint.sealing import document_hash, sealed

SECONDS = 40  # that a command may take
MEGABYTES = 1500  # that the process may grow by
CODES = (0, 1, 2, 3, 4, 5)
_UNWANTED = re.compile(r"unexpected |Traceback|DataLoader|worker|Error\(|\x1b|Warning:")
_DEEP: list[Any] = []
for _ in range(400):
    _DEEP = [_DEEP]
_ODD: tuple[Any, ...] = (
    *(None, True, False, "", "x", "x" * 20_000, "\ud800", "\x1b[31mred\x1b[0m\nnote: done", "../../x", "1", "NaN"),
    *(0, -1, 1, 2, 7, 3_000_000, 2**31, 2**63, 10**30, 0.5, -0.0, 1e-300, 1e300, -1e300),
    *(float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, [0] * 3, [1.0] * 3, ["a"] * 3, [[1] * 3], _DEEP),
)


@dataclass(frozen=True)
class Target:
    """A document in a folder of the shelf, what reads it, and what must follow when it changes."""

    folder: str
    path: str
    commands: tuple[tuple[object, ...], ...]
    lines: bool = False
    """Whether it has a document a line."""
    seal: Callable[[Path, dict[str, Any]], dict[str, Any]] = lambda path, document: document

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.folder}/{self.path}"


@dataclass
class Findings:
    """What was tried, how it ended, and what was wrong."""

    cases: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


def _own_seal(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    return sealed(document)


def _in_manifest(path: Path, document: dict[str, Any]) -> dict[str, Any]:
    """Let the manifest beside a config.json say that this one was written with it."""
    manifest = path.with_name("graft.json")
    said = json.loads(manifest.read_text()) | {"config_hash": document_hash(document)}
    manifest.write_text(json.dumps(sealed(said)))
    return document


_IMAGES = ("--data", "IMAGES", "--workers", 0)


def make_shelf(shelf: Path) -> None:
    """Make one folder of each kind: from timm, torchvision and transformers, grafted, a run, and a comparison."""
    from tiny_transformers import saved, tiny

    images = make_image_folder(shelf / "images", splits=("val",), classes=10)
    for label, folder in enumerate(sorted((images / "val").iterdir())):
        folder.rename(folder.with_name(str(label)))  # as the digits' classes are called
    data = ("--recipe", "digits-dropout", "training.device=cpu", "data.workers=0", "data.limit=10")
    steps = ("training.epochs=2", "training.batch_size=25", "training.checkpoints.steps=1")
    adam = ("training.optimizer.name=adamw", "training.optimizer.lr=0.001", "training.ema=0.9")
    succeed("train", *TINY, *data, *steps, *adam, "training.checkpoints.keep=100", "-o", shelf / "run")
    _stop_after(shelf / "run", 6)
    succeed("strip", shelf / "run", "-o", shelf / "hub")
    succeed("graft", shelf / "hub", "-o", shelf / "grafted")
    random_weights = ("torchvision/shufflenet_v2_x0_5", "--random-weights", "--num-classes", 10)
    succeed("graft", *random_weights, "-o", shelf / "wide")
    succeed("strip", shelf / "wide", "-o", shelf / "torchvision")
    saved(tiny("ElectraForSequenceClassification"), shelf / "transformers")
    few = ("--seeds", 2, "--learning-rates", "1", "training.epochs=1")
    succeed("compare", *TINY, *data, *few, "-o", shelf / "compared")


def targets() -> list[Target]:
    """Return the documents on the shelf."""
    opened = (("inspect", "HERE"), ("eval", "HERE", *_IMAGES), ("graft", "HERE", "-o", "OUT"), ("diff", "HERE", "HERE"))
    grafted = (("inspect", "HERE"), ("strip", "HERE", "-o", "OUT"), ("eval", "HERE", *_IMAGES))
    resume, strip = ("train", "-o", "HERE", "--resume"), ("strip", "HERE", "-o", "OUT")
    report = ("report", "HERE", "-o", "OUT")
    return [
        Target("hub", "config.json", opened),
        Target("torchvision", "config.json", opened),
        Target("transformers", "config.json", (("inspect", "HERE"), ("graft", "HERE", "-o", "OUT"))),
        Target("grafted", "graft.json", grafted, seal=_own_seal),
        Target("grafted", "config.json", grafted, seal=_in_manifest),
        Target("run", "last/state.json", (resume, report, strip), seal=_own_seal),
        Target("run", "last/graft.json", (resume, report), seal=_own_seal),
        Target("run", "last/config.json", (resume, report), seal=_in_manifest),
        Target("run", "best/state.json", (strip, report), seal=_own_seal),
        Target("run", "environment.json", (resume, report)),
        Target("run", ".spgsurgeon.json", (resume, report)),
        Target("run", "metrics.jsonl", (report, resume), lines=True),
        *(Target("compared", name, (report,)) for name in ("compare-plan.json", "compare.json", "costs.json")),
        Target("compared", "results.jsonl", (report,), lines=True),
    ]


def _stop_after(run: Path, step: int) -> None:
    """Let a run be one that was stopped in its second epoch, after the best one so far."""
    folders = sorted((run / "checkpoints").iterdir())
    steps = {int(folder.name.partition("-")[0]): folder for folder in folders}
    for folder in folders:
        if folder not in (steps[4], steps[step]):
            shutil.rmtree(folder)
    for pointer, folder in (("best", steps[4]), ("last", steps[step])):
        (run / pointer).unlink()
        (run / pointer).symlink_to(Path("checkpoints", folder.name))


def changed(document: Any, rng: random.Random) -> Any:
    """Return a document with one to three of its values changed, mostly one."""
    made = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(made))
        if places:
            _change(made, rng, *rng.choice(places))
    return made


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """Yield each container with each of its keys; those high up often, for documents are mostly leaves."""
    keys = value.keys() if isinstance(value, dict) else range(min(len(value), 6)) if isinstance(value, list) else ()
    for key in keys:
        yield from [(value, key)] * max(1, 4 - depth)
        yield from _places(value[key], depth + 1)


def _change(document: Any, rng: random.Random, container: Any, key: Any) -> None:
    value, others = container[key], [parent[name] for parent, name in _places(document)]
    near = [value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        near = [-value, value * 1_000_000, value + 1, value - 1, value / 3, str(value), [value]]
    elif isinstance(value, list):
        near = [value * 100, value[:-1], [*value, *value[:1]], [value], {str(i): v for i, v in enumerate(value)}]
    elif isinstance(value, dict):
        near = [[*value.items()], [*value.values()], {**value, "\x1b[31m": 1}, {"nested": value}]
    elif isinstance(value, str):
        near = [value + "\n", value[:-1], value * 100, [value], {value: value}]
    way = rng.random()
    if way < 0.1 and isinstance(container, dict):
        del container[key]
    else:
        container[key] = copy.deepcopy(rng.choice(_ODD if way < 0.6 else near if way < 0.85 else others))


def fuzz(shelf: Path, chosen: list[Target], cases: int, seed: int) -> Findings:
    """Change the chosen documents in turn and let a command read each."""
    rng, found = random.Random(seed), Findings()
    for number in range(cases):
        target = chosen[number % len(chosen)]
        command = target.commands[(number // len(chosen)) % len(target.commands)]
        with tempfile.TemporaryDirectory(dir=shelf) as place:
            case = f"case {number} of seed {seed}, {target.name}, {command[0]}"
            _try(shelf, target, command, rng, Path(place), case, found)
    return found


def _try(
    shelf: Path,
    target: Target,
    command: tuple[object, ...],
    rng: random.Random,
    place: Path,
    case: str,
    found: Findings,
) -> None:
    here = place / target.folder
    shutil.copytree(shelf / target.folder, here, symlinks=True)
    said = _rewrite(here / target.path, target, rng)
    names = {"HERE": here, "OUT": place / "out", "IMAGES": shelf / "images"}
    words = [names.get(str(word), word) for word in command]
    started, size = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with _limited():
        outcome = spgsurgeon(*words, *(["--json"] if rng.random() < 0.5 else []))
    seconds = time.perf_counter() - started
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) / 1024
    found.cases += 1
    found.codes[outcome.code] += 1
    if wrong := _wrong(outcome, seconds, grown):
        found.faults.append(f"{case}: {wrong}\n    {said}")


def _rewrite(path: Path, target: Target, rng: random.Random) -> str:
    """Write the document anew with something changed, and return what differs, for people."""
    text = path.read_text()
    lines = text.splitlines() if target.lines else [text]
    turn = rng.randrange(len(lines))
    before = json.loads(lines[turn])
    after = changed(before, rng)
    if isinstance(after, dict):
        after = target.seal(path, after)
    lines[turn] = json.dumps(after, indent=None if target.lines else 2)
    path.write_text("\n".join(lines) + "\n")
    return "; ".join(_differences(before, after))[:400]


def _differences(one: Any, other: Any, place: str = "") -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in one.keys() | other.keys():
            yield from _differences(one.get(key), other.get(key), f"{place}.{key}")
    elif repr(one) != repr(other) and not place.endswith("hash"):
        yield f"{place}: {ascii(one)[:60]} -> {ascii(other)[:60]}"


def _wrong(outcome: Outcome, seconds: float, megabytes: float) -> str | None:
    if outcome.code not in CODES:
        return f"exit code {outcome.code}"
    if found := _UNWANTED.search(outcome.out + outcome.err):
        text = outcome.out + outcome.err
        return text[max(0, found.start() - 100) : found.end() + 200]
    if len(outcome.err) > 3000:
        return f"a message of {len(outcome.err)} characters: {outcome.err[:200]}"
    if megabytes > MEGABYTES:
        return f"{megabytes:.0f} MB"
    return f"{seconds:.0f} s" if seconds > SECONDS else None


@contextmanager
def _limited() -> Iterator[None]:
    """Raise TimeoutError within what takes too long; the command calls that unexpected."""

    def stop(number: int, frame: object) -> None:
        raise TimeoutError(f"{SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Run the search and say what it found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="targets whose name holds this")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        shelf = Path(place)
        make_shelf(shelf)
        chosen = [target for target in targets() if asked.only in target.name]
        found = fuzz(shelf, chosen, asked.cases, asked.seed)
    print("\n".join(found.faults))
    codes = ", ".join(f"{count} with {code}" for code, count in sorted(found.codes.items()))
    print(f"{found.cases} cases of {len(chosen)} documents, {codes}: {len(found.faults)} faults")
    return 1 if found.faults else 0


if __name__ == "__main__":
    sys.exit(main())
