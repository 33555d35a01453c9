"""The runs of a comparison: what one does, alone in its process, and what is kept of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from spgsurgeon.checkpoint import Document, Name, Natural
from spgsurgeon.comparing.layout import RUNS
from spgsurgeon.comparing.lineup.built_in import SEARCH
from spgsurgeon.comparing.search import search
from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe import Recipe
from spgsurgeon.runs import FREE_KEYS, METRICS, Scored, last_of, read_epochs, read_run_state
from spgsurgeon.runtime import as_json
from spgsurgeon.tasks import LOSS, Metric, Scores
from spgsurgeon.training import NonFiniteError, train


@dataclass(frozen=True)
class Run:
    """One training: an arm with one learning rate, `multiple` times the recipe's, and one seed."""

    arm: str
    multiple: float
    seed: int

    @property
    def folder(self) -> Path:
        """Where it lies in the comparison's folder."""
        return Path(RUNS, self.arm, folder_of(self.multiple), f"seed-{self.seed}")


def folder_of(multiple: float) -> str:
    """Return the name of the folder of the runs with this multiple of the recipe's learning rate."""
    return f"lr-{multiple:.4g}"


def rate_of(recipe: Recipe, multiple: float) -> float:
    """Return the learning rate that is this multiple of the recipe's, to six digits."""
    return float(f"{recipe.training.optimizer.lr * multiple:.6g}")


@dataclass(frozen=True)
class Assignment:
    """A run and all that it takes; `overrides` are complete, learning rate and seed included."""

    run: Run
    output: Path
    base: Path
    recipe: str
    overrides: tuple[str, ...]
    epochs: int


@dataclass(frozen=True)
class Result:
    """How a run went: the scores of its best epoch on the held-out part, None if it broke off at NaN or infinity.

    `folder` is that of the run whose best checkpoint they are of, within the comparison's. Of a search, `steps` and
    `seconds` count all trials. `seconds` are of training, without evaluations.
    """

    run: Run
    validation: Scores | None
    folder: str
    steps: int
    seconds: float
    trouble: str | None = None


def perform(given: Assignment) -> Result:
    """Do the run, or what is left of it: one that has begun goes on from its last checkpoint."""
    try:
        return _search(given) if given.run.arm == SEARCH else _train(given)
    except SurgeonError as error:
        error.message = f"arm {given.run.arm}, seed {given.run.seed}: {error.message}"
        raise


def _search(given: Assignment) -> Result:
    folder = given.output / given.run.folder
    found = search(folder, str(given.base), given.recipe, given.overrides, given.epochs, given.run.seed)
    trials = [cost(trial) for trial in found.trials]
    steps, seconds = sum(steps for steps, _ in trials), sum(seconds for _, seconds in trials)
    return Result(given.run, found.best, str(found.folder.relative_to(given.output)), steps, seconds, found.trouble)


def _train(given: Assignment) -> Result:
    folder = given.output / given.run.folder
    best, trouble = None, None
    try:
        if folder.exists() and last_of(folder) is not None:
            free = [override for override in given.overrides if override.partition("=")[0] in FREE_KEYS]
            best = train(output=folder, overrides=free, resume=True)["best"]
        else:  # also where it was killed before its first checkpoint
            base, overrides = str(given.base), given.overrides
            best = train(base, recipe=given.recipe, overrides=overrides, output=folder, force=True)["best"]
    except NonFiniteError as error:
        trouble = error.message
    return Result(given.run, best, str(given.run.folder), *cost(folder), trouble)


def cost(folder: Path) -> tuple[int, float]:
    """Return how many steps a run had done at its last checkpoint, and the seconds of its whole epochs."""
    last = last_of(folder) if folder.exists() else None
    steps = read_run_state(last)["counters"]["step"] if last else 0
    return steps, sum(epoch.seconds for epoch in read_epochs(folder / METRICS)[0])


# What is kept


def add_result(path: Path, result: Result) -> None:
    """Append a line to the file of results. What a crash cut off before it stays a line of its own, and no result."""
    with path.open("a+b") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(as_json(asdict(result)).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def read_results(path: Path) -> dict[Run, Result]:
    """Return the results by run; lines that are damaged are left out."""
    results = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else ():
        with suppress(ValueError):  # pydantic's is one
            result = _ResultDocument.model_validate_json(line).result()
            results[result.run] = result
    return results


def _within(folder: str) -> str:
    """Return the name of a folder within the comparison's. Raises ValueError for any other."""
    if Path(folder).is_absolute() or ".." in Path(folder).parts:
        raise ValueError("it must lie within the comparison's folder")
    return folder


class _RunDocument(Document):
    """A `Run`, as a line of results has it."""

    arm: Name
    multiple: Annotated[float, Field(gt=0)]
    seed: int


class _ResultDocument(Document):
    """A `Result`, as a line of results has it."""

    run: _RunDocument
    validation: Scored | None
    folder: Annotated[Name, AfterValidator(_within)]
    steps: Natural
    seconds: Annotated[float, Field(ge=0)]
    trouble: str | None = None

    def result(self) -> Result:
        """Return what the line says."""
        run = Run(self.run.arm, self.run.multiple, self.run.seed)
        return Result(run, self.validation, self.folder, self.steps, self.seconds, self.trouble)


def results_of(results: dict[Run, Result], arm: str, multiple: float | None = None) -> list[Result]:
    """Return an arm's results in the order of runs, all of them or those with one learning rate."""
    found = [r for run, r in results.items() if run.arm == arm and multiple in (None, run.multiple)]
    return sorted(found, key=lambda result: (result.run.multiple, result.run.seed))


def mean_validation(results: Iterable[Result], metric: Metric) -> float | None:
    """Return the mean score; None if a run broke off."""
    return _mean(results, metric.name)


def merit(results: Iterable[Result], metric: Metric) -> tuple[float, float]:
    """Return what learning rates are chosen by, larger for better ones: the mean score and, in a tie, the loss."""
    found = list(results)
    score, loss = _mean(found, metric.name), _mean(found, LOSS.name)
    return (-math.inf, -math.inf) if score is None or loss is None else (metric.merit(score), LOSS.merit(loss))


def _mean(results: Iterable[Result], name: str) -> float | None:
    scores = [None if result.validation is None else result.validation.get(name) for result in results]
    whole = [score for score in scores if score is not None]
    return sum(whole) / len(whole) if whole and len(whole) == len(scores) else None


def valid_share(folder: Path) -> list[float]:
    """Return the share of units still valid at each step in a run's last epoch; empty if it recorded none."""
    epochs = read_epochs(folder / METRICS)[0]
    return epochs[-1].valid_share if epochs else []
