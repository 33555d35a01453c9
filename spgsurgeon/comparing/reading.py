"""A comparison's folder as it is reported: its plan, the runs that are done and, once it is, what it found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from spgsurgeon.checkpoint import read_json_object
from spgsurgeon.comparing.layout import COSTS, DOCUMENT, PLAN, RESULTS, RUNS
from spgsurgeon.comparing.plan import Plan, read_plan
from spgsurgeon.comparing.records import ComparisonCosts, ComparisonDocument, ComparisonRecord, Trial
from spgsurgeon.comparing.runs import Result, Run, folder_of, mean_validation, read_results, results_of
from spgsurgeon.errors import DamagedFileError, SurgeonError
from spgsurgeon.recipe import LabelNoiseSection
from spgsurgeon.runs import METRICS, read_epochs
from spgsurgeon.tasks import task_scored_by

_Model = TypeVar("_Model", bound=BaseModel)


def is_comparison(path: Path) -> bool:
    """Return whether `spgsurgeon compare` wrote this folder."""
    return (path / PLAN).is_file()


def arm_of(run: Path) -> str | None:
    """Return the arm that a run belongs to, if it lies in a comparison's folder."""
    parents = run.resolve().parents
    if len(parents) < 4:
        return None
    _rate, arm, runs, folder = parents[:4]
    return arm.name if runs.name == RUNS and is_comparison(folder) else None


def read_comparison(path: Path, name: str, number: int) -> ComparisonRecord:
    """Return what the folder records. What is damaged is said in its notes.

    Raises DamagedFileError if its plan can't be read: nothing is known of it then.
    """
    plan, notes = read_plan(path), list[str]()
    results = read_results(path / RESULTS)
    document = _read(path / DOCUMENT, ComparisonDocument, notes)
    costs = _read(path / COSTS, ComparisonCosts, notes) if document else None
    grid = plan.learning_rates
    if document and document["grid"] != grid:
        notes.append("The scores are those of the grid before, and the comparison resumes a wider one.")
    return ComparisonRecord(
        number=number,
        name=name,
        facts=_facts(plan),
        changes=plan.arms,
        seeds=len(plan.seeds),
        done=len(results),
        planned=None if isinstance(grid, str) else plan.run_count(len(grid)),
        trials={arm: _trials(plan, results, arm) for arm in plan.arms},
        document=document,
        costs=costs if costs and document and costs["arms"].keys() >= document["arms"].keys() else None,
        runs=_chosen(path, document, results) if document else (),
        notes=notes,
    )


def _read(path: Path, model: type[_Model], notes: list[str]) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return model.model_validate(read_json_object(path)).model_dump()
    except DamagedFileError as error:
        notes.append(f"{path.name} can't be read: {error.message}")
    except ValidationError as error:
        fault = error.errors()[0]
        notes.append(f"{path.name} can't be read: {'.'.join(map(str, fault['loc']))}: {fault['msg']}")
    return None


def _facts(plan: Plan) -> dict[str, str]:
    grid = plan.learning_rates
    multiples = grid if isinstance(grid, str) else ", ".join(f"{multiple:g}" for multiple in grid)
    epochs = ", ".join(f"{name} {count}" for name, count in plan.epochs.items())
    return {
        "model": plan.model,
        "seeds": ", ".join(map(str, plan.seeds)),
        "learning rates": f"{multiples} times {_rate(plan):g}",
        "equal in": plan.budget,
        "epochs": epochs if len(set(plan.epochs.values())) > 1 else str(next(iter(plan.epochs.values()), "")),
        **_wrong_labels(plan),
        "versions": ", ".join(f"{name} {version}" for name, version in plan.versions.items()),
    }


def _wrong_labels(plan: Plan) -> dict[str, str]:
    """Return what the recipe says of labels made wrong by design, if it makes some."""
    try:
        noise = LabelNoiseSection.model_validate(plan.recipe.get("data", {}).get("label_noise", {}))
    except (AttributeError, ValidationError) as error:
        raise DamagedFileError(f"{PLAN} is damaged: what its recipe says of data.label_noise") from error
    return {"wrong labels by design": noise.words} if noise.rate else {}


def _rate(plan: Plan) -> float:
    try:
        return float(plan.recipe["training"]["optimizer"]["lr"])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFileError(f"{PLAN} is damaged: its recipe has no learning rate") from error


def _trials(plan: Plan, results: dict[Run, Result], arm: str) -> list[Trial]:
    trials = []
    choosing = [run for run in results if run.arm == arm and run.seed in plan.choosing]
    for multiple in sorted({run.multiple for run in choosing}):
        done = [one for one in results_of(results, arm, multiple) if one.run.seed in plan.choosing]
        whole = [result for result in done if result.validation is not None]
        mean = mean_validation(whole, task_scored_by(plan.metric).primary)
        trials.append(Trial(float(f"{_rate(plan) * multiple:.6g}"), len(done), mean, len(done) - len(whole)))
    return trials


def _chosen(path: Path, document: dict[str, Any], results: dict[Run, Result]) -> list[str]:
    """Return the folder of a chosen run of each arm, its first seed's."""
    chosen = [Run(name, arm["multiple"], document["seeds"][0]) for name, arm in document["arms"].items()]
    folders = [path / results[run].folder for run in chosen if run in results]
    return [str(folder) for folder in folders if folder.is_dir()]


# While it goes on


@dataclass(frozen=True)
class HowFar:
    """Runs and epochs that are done, of how many; and of each run that goes on its name, its epochs done and planned.

    An auto grid may still grow.
    """

    runs_done: int
    runs: int
    epochs_done: int
    epochs: int
    running: tuple[tuple[str, int, int], ...]


def how_far(folder: Path) -> HowFar | None:
    """Return how far the comparison is; None if it has not begun. Epochs of a cold start are not counted."""
    try:
        plan = read_plan(folder) if (folder / PLAN).is_file() else None
    except SurgeonError:  # who reads it for its content says what is wrong
        plan = None
    if plan is None or not plan.epochs:
        return None
    done = read_results(folder / RESULTS)
    multiples = {folder_of(multiple) for multiple in plan.first_multiples} | {folder_of(run.multiple) for run in done}
    running = tuple(_running(folder, plan, {run.folder for run in done}))
    runs = plan.run_count(len(multiples))
    return HowFar(
        runs_done=len(done),
        runs=runs,
        epochs_done=sum(plan.epochs.get(run.arm, 0) for run in done) + sum(epochs for _, epochs, _ in running),
        epochs=sum(plan.epochs.values()) * runs // len(plan.arms),
        running=running,
    )


def _running(folder: Path, plan: Plan, done: set[Path]) -> Iterator[tuple[str, int, int]]:
    for arm, epochs in plan.epochs.items():
        for path in sorted((folder / RUNS / arm).glob("*/*")):
            if path.relative_to(folder) not in done:
                told = sum(_epochs(metrics) for metrics in path.rglob(METRICS))  # a search has several
                yield f"{arm} {path.parent.name} {path.name}", min(told, epochs), epochs


def _epochs(metrics: Path) -> int:
    return sum(epoch.phase == "train" for epoch in read_epochs(metrics)[0])
