"""Comparisons that train nothing: scores are made up, and the rest is as the command does it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from spgsurgeon.comparing.choice import Comparison
from spgsurgeon.comparing.layout import COSTS, DOCUMENT, PLAN
from spgsurgeon.comparing.lineup.arms import line_up
from spgsurgeon.comparing.plan import Plan, versions
from spgsurgeon.comparing.runs import Assignment, Result, perform
from spgsurgeon.comparing.scores import Scored
from spgsurgeon.comparing.table import markdown
from spgsurgeon.tasks.classification import CLASSIFICATION
from spgsurgeon.tasks.task import Task

RECIPE = "data: {source: digits, holdout: 0.1}\ntraining: {optimizer: {lr: 0.02}}\n"


class MadeUp:
    """A crew that trains nothing: `validation` gives a run's score by arm, multiple and seed; None breaks it off."""

    def __init__(self, validation: Callable[[str, float, int], float | None], task: Task) -> None:
        self._validation, self._task = validation, task

    def call(self, function: Callable[..., Any], calls: list[tuple[Any, ...]]) -> Iterator[Any]:
        for given in reversed(calls):  # they come in any order
            yield self._perform(given[0]) if function is perform else self._score(*given)

    def _perform(self, given: Assignment) -> Result:
        run = given.run
        score = self._validation(run.arm, run.multiple, run.seed)
        scores = None if score is None else {self._task.primary.name: score, "loss": 1.0}
        (given.output / run.folder).mkdir(parents=True)
        return Result(run, scores, str(run.folder), 10, 2.5, "NaN" if score is None else None)

    def _score(self, name: str, seed: int, folder: Path, recipe: Any) -> tuple[str, int, Scored]:
        multiple = float(folder.parent.name.removeprefix("lr-")) if name else 0.0
        hits = np.array([index < 90 + (name == "spg") for index in range(100)], dtype=np.int64)
        own = int(folder.name.removeprefix("seed-")) if name else 0
        return name, seed, Scored({self._task.primary.name: 10 * multiple + own, "samples": 100}, hits)


def made_up(
    recipe: Path,
    output: Path,
    validation: Callable[[str, float, int], float | None],
    *,
    grid: list[float] | str = "auto",
    seeds: int = 2,
    choosing_seeds: int | None = None,
    taken_over: Sequence[float] = (),
    task: Task = CLASSIFICATION,
) -> dict[str, Any]:
    """Return the document of a comparison of plain and spg, which lies in `output` as the command writes it."""
    lineup = line_up(["spg"], recipe)
    plan = Plan(
        model="m",
        base_hash="",
        recipe=lineup.recipe.model_dump(mode="json"),
        arms={arm.name: arm.changes for arm in lineup.arms},
        seeds=list(range(seeds)),
        learning_rates=grid,
        budget="epochs",
        versions=versions(),
        metric=task.primary.name,
        chosen_on="digits (train), held out",
        scored_on="digits (val)",
        epochs={"plain": 1, "spg": 1},
        taken_over=list(taken_over),
        choosing_seeds=choosing_seeds,
    )
    crew: Any = MadeUp(validation, task)
    output.mkdir(exist_ok=True)  # with the results of an earlier one
    comparison = Comparison(output, lineup, plan, crew, lambda text: None)
    document, costs = comparison.run()
    for name, content in ((PLAN, asdict(plan)), (DOCUMENT, document), (COSTS, costs)):
        (output / name).write_text(json.dumps(content))
    table = markdown(document, costs)
    assert "| spg |" in table
    assert ("is at the grid's edge" in table) == any(arm["at_edge"] for arm in document["arms"].values())
    return document
