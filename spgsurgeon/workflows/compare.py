"""`spgsurgeon compare`: ways to train one model on one's own data, at the same cost, with intervals.

All arms start from the same weights and meet the same batches at a seed, for as many optimizer steps (or seconds).
Each has the same grid of learning rates; the one with the best mean over all seeds, each run's best epoch on a part of
the training split that none is trained on, is chosen for an arm. Only then are the chosen runs, at those epochs, scored
on data.eval.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from spgsurgeon.checkpoint.writing import (
    atomic_file,
    atomic_folder,
    refuse_existing,
    refuse_overwriting_input,
    write_json,
)
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.recipe.schema import HOLDOUT, Recipe
from spgsurgeon.reporting.comparison_figures import comparison_figures
from spgsurgeon.reporting.comparison_table import markdown
from spgsurgeon.reporting.paired import agreeing, paired_difference
from spgsurgeon.workflows.comparing_arms import PLAIN, SEARCH, Arm, settle_arms
from spgsurgeon.workflows.comparing_plan import (
    Budget,
    Grid,
    Plan,
    check_same_plan,
    complete,
    open_base,
    read_plan,
    read_settled,
    settled_plan,
    write_base,
)
from spgsurgeon.workflows.comparing_processes import Crew, hire
from spgsurgeon.workflows.comparing_runs import (
    Result,
    Run,
    Scored,
    Task,
    add_result,
    mean_validation,
    perform,
    read_results,
    results_of,
    score,
    valid_share,
)
from spgsurgeon.workflows.searching import check_search

FIRST_GRID, GROWTH, MOST_GROWTH = (1.0, 3.0, 10.0), 3.0, 4
_PLAN, _RESULTS, _DOCUMENT, _COSTS, _TABLE = (
    "compare-plan.json",
    "results.jsonl",
    "compare.json",
    "costs.json",
    "compare.md",
)

Say = Callable[[str], None]


def compare(
    model: str | None = None,
    *,
    recipe: str | Path,
    overrides: Sequence[str] = (),
    arms: Sequence[str] = (PLAIN, "spg"),
    seeds: int = 5,
    learning_rates: Grid = FIRST_GRID,
    budget: Budget = "epochs",
    jobs: int | None = None,
    output: Path = Path("comparison"),
    resume: bool = False,
    force: bool = False,
    random_weights: bool = False,
    num_classes: int | None = None,
    weights: str | None = None,
    arch: str | None = None,
    say: Say = lambda text: None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Compare the `arms` on `model` (else the recipe's) into the folder `output`.

    Returns the document of `compare --json`, which the same arguments give again, and what each arm cost: runs, steps
    and seconds, those of choosing included. `learning_rates` are multiples of the recipe's, or "auto": 1, 3, 10, and
    more on either side until the best of each arm has neighbours. `budget` is what arms have as much of: epochs, or
    seconds on this machine. With one seed the interval is over the pictures of data.eval instead of over seeds. `jobs`
    is the number of processes, by default one for a GPU, else one a core. `resume` goes on with a comparison of the
    same arguments, or starts it; `force` replaces an older one. `say` is told how it goes.
    """
    _check_numbers(seeds, learning_rates, jobs)
    settled, shared = read_settled(recipe, overrides)
    chosen_arms = settle_arms(arms, recipe, shared, settled)
    if SEARCH in arms:
        check_search()
    model = model or settled.model
    if model is None:
        raise UsageError("neither the command nor the recipe names a model", hint="spgsurgeon compare MODEL --recipe …")
    resumes = resume and os.path.lexists(output)
    if not resumes:
        refuse_existing(output, force=force)
    options = {"num_classes": num_classes, "weights": weights, "arch": arch}
    opened = open_base(model, settled, random_weights=random_weights, **options)
    for text in opened.notes:
        say(text)
    refuse_overwriting_input(output, opened.paths())
    plan = settled_plan(model, opened, settled, chosen_arms, seeds, learning_rates, budget)
    if seeds == 1 and opened.task == "segmentation":
        raise UsageError("one seed has an interval over pictures, and maps have no hits to count", hint="--seeds 2")
    source = str(recipe)
    with hire(jobs or _default_jobs(settled)) as crew:
        if resumes:
            if not (output / _PLAN).is_file():
                raise UsageError(f"{output} is no comparison: it has no {_PLAN}", hint="start one without --resume")
            found = read_plan(output / _PLAN)
            check_same_plan(plan, found, output)
            plan = found
        else:
            say(f"check that {', '.join(plan.arms)} can be trained on the data")
            with atomic_folder(output, force=force) as folder:
                write_base(folder / "base", opened)
                complete(plan, folder / "base", source, shared, chosen_arms, opened.task)
                write_json(folder / _PLAN, asdict(plan))
        del opened
        comparison = _Comparison(output, source, shared, settled, chosen_arms, plan, crew, say)
        document, costs = comparison.run()
    _write(output, document, costs, comparison)
    return document, costs


class _Comparison:
    """A comparison that is settled: its runs, the choice among them, the scores of those chosen."""

    def __init__(
        self,
        output: Path,
        source: str,
        shared: Sequence[str],
        recipe: Recipe,
        arms: Sequence[Arm],
        plan: Plan,
        crew: Crew,
        say: Say,
    ) -> None:
        self.output, self.plan = output, plan
        self._source, self._shared, self._recipe = source, shared, recipe
        self._arms = {arm.name: arm for arm in arms}
        self._crew, self._say = crew, say
        self.results = read_results(output / _RESULTS)
        self.multiples: list[float] = []
        self.chosen: dict[str, float] = {}

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Do what is left of the comparison; return its document and its costs."""
        asked = self.plan.learning_rates
        multiples = list(FIRST_GRID) if isinstance(asked, str) else asked
        self._train(multiples)
        while asked == "auto" and (more := self._beyond_the_edges(multiples)):
            multiples = sorted([*multiples, *more])
            self._train(more)
        self.multiples = multiples
        self.chosen = {name: self._best(name, multiples) for name in self._arms}
        return self._document(*self._scores()), self._costs()

    def _train(self, multiples: Sequence[float]) -> None:
        """Do the runs of these learning rates that have no result yet."""
        runs = [Run(a, m, seed) for seed in self.plan.seeds for m in multiples for a in self._arms]
        missing = [run for run in runs if not self._is_done(run)]
        if len(missing) < len(runs):
            self._say(f"{len(runs) - len(missing)} of {len(runs)} runs are done")
        for number, result in enumerate(self._crew.call(perform, [(self._task(run),) for run in missing]), start=1):
            add_result(self.output / _RESULTS, result)
            self.results[result.run] = result
            self._say(f"{len(runs) - len(missing) + number} of {len(runs)} runs: {self._outcome(result)}")

    def _is_done(self, run: Run) -> bool:
        result = self.results.get(run)
        return result is not None and (result.validation is None or (self.output / result.folder).is_dir())

    def _task(self, run: Run) -> Task:
        own = [f"data.eval={HOLDOUT}", f"training.optimizer.lr={self._rate(run.multiple)}", f"training.seed={run.seed}"]
        epochs = self.plan.epochs[run.arm]
        overrides = (*self._shared, *self._arms[run.arm].overrides, *own, f"training.epochs={epochs}")
        return Task(run, self.output, self.output / "base", self._source, overrides, epochs)

    def _rate(self, multiple: float) -> float:
        return float(f"{self._recipe.training.optimizer.lr * multiple:.6g}")

    def _outcome(self, result: Result) -> str:
        run = result.run
        found = f"{result.validation[self.plan.metric]:.2f} %" if result.validation else f"none, {result.trouble}"
        return f"{run.arm}, learning rate {self._rate(run.multiple):g}, seed {run.seed}: {found}"

    def _validation(self, arm: str, multiple: float) -> tuple[float, float]:
        return mean_validation(results_of(self.results, arm, multiple), self.plan.metric)

    def _best(self, arm: str, multiples: Sequence[float]) -> float:
        """Return the learning rate that an arm is scored with, by the mean over all seeds."""
        best = max(multiples, key=lambda multiple: self._validation(arm, multiple))
        if self._validation(arm, best)[0] == float("-inf"):
            trouble = next(result.trouble for result in results_of(self.results, arm) if result.trouble)
            raise SurgeonError(
                f"arm {arm} met NaN or infinity at every learning rate: {trouble}",
                hint="give lower ones: --learning-rates 0.1,0.3,1",
            )
        return best

    def _beyond_the_edges(self, multiples: Sequence[float]) -> list[float]:
        """Return the learning rates to try next, for all arms, as the best of one has none on one side."""
        best = {max(multiples, key=lambda multiple: self._validation(arm, multiple)) for arm in self._arms}
        low, high = min(multiples), max(multiples)
        more = []
        if low in best and low > FIRST_GRID[0] / GROWTH**MOST_GROWTH * 1.01:
            more.append(low / GROWTH)
        if high in best and high < FIRST_GRID[-1] * GROWTH**MOST_GROWTH / 1.01:
            more.append(high * GROWTH)
        return more

    def _scores(self) -> tuple[Scored, dict[str, list[Scored]]]:
        """Score the original and the chosen runs, by the same code, on the split that has chosen nothing."""
        self._say(f"score the chosen runs on {self.plan.scored_on}")
        calls: list[tuple[Any, ...]] = [("", 0, self.output / "base", self._recipe)]
        for name, multiple in self.chosen.items():
            for result in results_of(self.results, name, multiple):
                calls.append((name, result.run.seed, self.output / result.folder, self._recipe))
        found = {(name, seed): scored for name, seed, scored in self._crew.call(_score, calls)}
        return found["", 0], {name: [found[name, seed] for seed in self.plan.seeds] for name in self._arms}

    def _document(self, original: Scored, scored: dict[str, list[Scored]]) -> dict[str, Any]:
        metric = self.plan.metric
        arms = {}
        for name in self._arms:
            scores = [one.scores[metric] for one in scored[name]]
            means = {m: self._validation(name, m)[0] for m in self.multiples}
            results = results_of(self.results, name)
            arms[name] = {
                "overrides": self._arms[name].changes,
                "learning_rate": self._rate(self.chosen[name]),
                "validation": means[self.chosen[name]],
                "scores": scores,
                "mean": sum(scores) / len(scores),
                **_against(scored[PLAIN], scored[name], metric, is_plain=name == PLAIN),
                "at_edge": self.chosen[name] in (self.multiples[0], self.multiples[-1]),
                "runs": len(results),
                "steps": sum(result.steps for result in results),
                "epochs": self.plan.epochs[name],
                "broken_off": sum(result.validation is None for result in results),
                "learning_rates": [
                    {"learning_rate": self._rate(m), "validation": None if mean == float("-inf") else mean}
                    for m, mean in means.items()
                ],
            }
        return {
            "arms": arms,
            "original": original.scores[metric],
            "seeds": self.plan.seeds,
            "metric": metric,
            "chosen_on": self.plan.chosen_on,
            "scored_on": self.plan.scored_on,
            "samples": original.scores["samples"],
            "budget": self.plan.budget,
        }

    def _costs(self) -> dict[str, Any]:
        costs: dict[str, Any] = {}
        for name in self._arms:
            results = results_of(self.results, name)
            seconds, steps = sum(result.seconds for result in results), sum(result.steps for result in results)
            kept = sum(result.steps for result in results_of(self.results, name, self.chosen[name]))
            costs[name] = {"runs": len(results), "steps": steps, "steps_of_choosing": steps - kept, "seconds": seconds}
            costs[name]["seconds_per_step"] = seconds / steps if steps else None
            if self.plan.step_seconds:
                costs[name]["seconds_per_step_of_trial"] = self.plan.step_seconds[name]
        return {"arms": costs}

    def valid_shares(self) -> dict[str, list[float]]:
        """Return, for each arm with episodes, the chosen runs' mean share of units still valid at each step."""
        shares = {}
        for name, multiple in self.chosen.items():
            runs = [valid_share(self.output / r.folder) for r in results_of(self.results, name, multiple)]
            steps = min(map(len, runs))
            if steps > 1:
                shares[name] = [sum(run[step] for run in runs) / len(runs) for step in range(steps)]
        return shares


def _score(name: str, seed: int, folder: Path, recipe: Recipe) -> tuple[str, int, Scored]:
    return name, seed, score(folder, recipe)


def _against(plain: Sequence[Scored], arm: Sequence[Scored], metric: str, *, is_plain: bool) -> dict[str, Any]:
    """Return an arm's difference to plain over the seeds or, where there is one only, over the pictures."""
    if is_plain:
        return {"difference": None, "verdict": None}
    by_seed = [a.scores[metric] - p.scores[metric] for a, p in zip(arm, plain, strict=True)]
    resolution = 100 / plain[0].scores["samples"] if metric == "top1" else 0.0
    if len(by_seed) > 1:
        found = paired_difference(by_seed, resolution=resolution)
    else:
        hits = zip(arm[0].hits or (), plain[0].hits or (), strict=True)
        found = paired_difference([100.0 * a - 100.0 * p for a, p in hits])
    return {"difference": {**asdict(found), "agree": agreeing(by_seed)}, "verdict": found.verdict}


def _write(output: Path, document: dict[str, Any], costs: dict[str, Any], comparison: _Comparison) -> None:
    for name, content in ((_DOCUMENT, document), (_COSTS, costs)):
        with atomic_file(output / name, force=True) as temporary:
            write_json(temporary, content)
    with atomic_file(output / _TABLE, force=True) as temporary:
        temporary.write_text(markdown(document, costs), encoding="utf-8")
    for name, png in comparison_figures(document, comparison.valid_shares()).items():
        with atomic_file(output / "figures" / f"{name}.png", force=True) as temporary:
            temporary.write_bytes(png)


def _check_numbers(seeds: int, learning_rates: Grid, jobs: int | None) -> None:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("compare starts its own processes, not under torchrun", hint="--jobs N, without torchrun")
    if seeds < 1:
        raise UsageError(f"{seeds} seeds are none to compare", hint="--seeds 5; with 1 the interval is over pictures")
    if jobs is not None and jobs < 1:
        raise UsageError(f"{jobs} jobs can do no run", hint="--jobs 1")
    if isinstance(learning_rates, str):
        return
    if not learning_rates or min(learning_rates) <= 0 or len(set(learning_rates)) < len(learning_rates):
        raise UsageError(
            "learning rates are multiples of the recipe's, greater than zero and each given once",
            hint="--learning-rates 1,3,10 or auto",
        )


def _default_jobs(recipe: Recipe) -> int:
    """Return one for an accelerator, which a run has for itself, else one a core."""
    device = recipe.training.device
    if device != "cpu" and (device != "auto" or torch.accelerator.is_available()):
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
