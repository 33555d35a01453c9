"""What is known of how a run was measured: its scores, the data they are of, and the control it was compared with."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import kind_of
from spgsurgeon.comparing import PLAIN, folder_of, is_comparison, read_comparison
from spgsurgeon.data import form_of
from spgsurgeon.errors import SurgeonError
from spgsurgeon.exporting import Evaluation
from spgsurgeon.loading import resolve_folder
from spgsurgeon.recipe import HOLDOUT, read_recipe
from spgsurgeon.runs import RECIPE, Basis, basis_of_counters, read_run_state
from spgsurgeon.tasks import LOSS, METRIC, Task


def is_run(source: Path) -> bool:
    """Return whether it is a run, and not a folder that was grafted only, or a file."""
    return source.is_dir() and kind_of(source) == "run"


def judged(source: Path, task: Task) -> Task:
    """Return the task with the score first that a run was judged by; of anything else as it is."""
    best = read_run_state(resolve_folder(source))["counters"].get("best") if is_run(source) else None
    return task.scored_by(best.get(METRIC)) if best else task


def scores_of(source: Path, task: Task) -> dict[str, dict[str, float]] | None:
    """Return the scores that a card shows, `best` and the `original` that it is measured against, if there is one.

    That which the run was judged by comes first. None if there are none, as after grafting alone.
    """
    if not is_run(source):
        return None
    counters = read_run_state(resolve_folder(source))["counters"]
    if not (counters.get("original") and counters.get("best")):
        return None
    named = {"original": basis_of_counters(counters).scores, "best": counters["best"]}
    there = {when: scores for when, scores in named.items() if scores is not None}
    known = [metric.name for metric in judged(source, task).metrics if metric != LOSS]
    shown = [name for name in known if None not in _each(there, name)]
    return {when: {name: scores[name] for name in shown} for when, scores in there.items()}


def basis_of_run(source: Path) -> Basis | None:
    """Return what a run's best score is measured against; None for a folder that was grafted only."""
    return basis_of_counters(read_run_state(resolve_folder(source))["counters"]) if is_run(source) else None


def _each(scores: Mapping[str, Mapping[str, Any]], name: str) -> list[float | None]:
    return [one.get(name) for one in scores.values()]


def evaluation_of(source: Path, task: Task) -> Evaluation | None:
    """Return the data that a run's scores are of; None if there is no run, or no recipe that can be read."""
    data = None
    with suppress(SurgeonError):
        data = read_recipe(source / RECIPE).data
    if data is None:
        return None
    held_out, form = data.eval == HOLDOUT, form_of(data.source)
    return Evaluation(
        source=data.source,
        name=Path(data.path).name if data.path else data.source.rpartition("/")[2],
        split=(f"{data.holdout:g} of {data.train}, held out" if held_out else data.eval)
        + (f", {data.eval_limit} samples at most" if data.eval_limit else ""),
        hub_id=data.source.removeprefix(form.name) if form.on_hub else None,
        hub_metrics={metric.name: metric.hub_name for metric in task.metrics if metric.hub_name},
        percent=frozenset(metric.name for metric in task.metrics if metric.percent),
    )


def control_of(source: Path) -> str | None:
    """Return what a comparison that the run is part of found against its plain arm; None if that is not known.

    Only if it is a run of those that the arm is judged by: with the learning rate that was chosen.
    """
    run = source.resolve()
    if not is_run(source) or len(run.parents) < 4 or not is_comparison(run.parents[3]):
        return None
    found = read_comparison(run.parents[3], run.parents[3].name, 0).document or {"arms": {}}
    name, arms = run.parents[1].name, found["arms"]
    if name not in arms or name == PLAIN or PLAIN not in arms or folder_of(arms[name]["multiple"]) != run.parent.name:
        return None
    arm, difference = arms[name], arms[name]["difference"]
    return (
        f"over {len(found['seeds'])} seeds, on {found['scored_on']}, {found['metric']} is {arm['mean']:.3f} on "
        f"average, and {arms[PLAIN]['mean']:.3f} after plain retraining. "
        f"The difference is {difference['mean']:+.3f} (95 % interval {difference['low']:+.3f} to "
        f"{difference['high']:+.3f}): {arm['verdict']}."
    )
