"""The runs of a comparison, the choice of a learning rate for each arm, and what the chosen ones show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from spgsurgeon.comparing.layout import BASE, RESULTS
from spgsurgeon.comparing.lineup.arms import Lineup
from spgsurgeon.comparing.lineup.built_in import PLAIN
from spgsurgeon.comparing.plan import Plan
from spgsurgeon.comparing.pool import Crew
from spgsurgeon.comparing.runs import (
    Assignment,
    Result,
    Run,
    add_result,
    mean_validation,
    merit,
    perform,
    rate_of,
    read_results,
    results_of,
    valid_share,
)
from spgsurgeon.comparing.scores import Scored, against_plain, score
from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe import HOLDOUT, Recipe
from spgsurgeon.tasks import task_scored_by

_GROWTH, _MOST_GROWTH = 3.0, 4  # of an `auto` one: the next value is so many times the last, so many times a side
_NO_DIFFERENCE: dict[str, Any] = {"difference": None, "verdict": None}

Say = Callable[[str], None]


class Comparison:
    """A comparison that is settled: its runs, the choice among them, the scores of those chosen."""

    def __init__(self, output: Path, lineup: Lineup, plan: Plan, crew: Crew, say: Say) -> None:
        self.output, self.plan = output, plan
        self._metric = task_scored_by(plan.metric).primary
        self._lineup, self._recipe = lineup, lineup.recipe
        self._arms = {arm.name: arm for arm in lineup.arms}
        self._crew, self._say = crew, say
        self.results = read_results(output / RESULTS)
        self.multiples: list[float] = []
        self.chosen: dict[str, float] = {}

    def run(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Do what is left of the comparison; return its document and its costs."""
        multiples = self.plan.first_multiples
        self._train(self._runs(multiples))
        while self.plan.learning_rates == "auto" and (more := self._beyond_the_edges(multiples)):
            multiples = sorted([*multiples, *more])
            self._train(self._runs(more))
        self.multiples = multiples
        self.chosen = {name: self._best(name, multiples) for name in self._arms}
        self._train_the_rest()
        return self._document(*self._scores()), self._costs()

    def _runs(self, multiples: Sequence[float]) -> list[Run]:
        return [Run(a, m, seed) for seed in self.plan.choosing for m in multiples for a in self._arms]

    def _train_the_rest(self) -> None:
        """Train the seeds that choose nothing, each arm with its chosen learning rate.

        Raises SurgeonError if one met NaN or infinity, which those that chose did not.
        """
        seeds = [seed for seed in self.plan.seeds if seed not in self.plan.choosing]
        if not seeds:
            return
        self._say(f"learning rates are chosen; train seeds {', '.join(map(str, seeds))} with them")
        runs = [Run(name, multiple, seed) for seed in seeds for name, multiple in self.chosen.items()]
        self._train(runs)
        for run in runs:
            if (trouble := self.results[run].trouble) is not None:
                raise SurgeonError(
                    f"arm {run.arm}, seed {run.seed}, met NaN or infinity at the chosen learning rate: {trouble}",
                    hint=f"resume with --resume and --choosing-seeds {len(self.plan.seeds)}",
                    code="chosen-rate-diverges",
                )

    def _train(self, runs: Sequence[Run]) -> None:
        """Do those of the runs that have no result yet."""
        missing = [run for run in runs if not self._is_done(run)]
        if len(missing) < len(runs):
            self._say(f"{len(runs) - len(missing)} of {len(runs)} runs are done")
        for number, result in enumerate(
            self._crew.call(perform, [(self._assignment(run),) for run in missing]), start=1
        ):
            add_result(self.output / RESULTS, result)
            self.results[result.run] = result
            self._say(f"{len(runs) - len(missing) + number} of {len(runs)} runs: {self._outcome(result)}")

    def _is_done(self, run: Run) -> bool:
        result = self.results.get(run)
        return result is not None and (result.validation is None or (self.output / result.folder).is_dir())

    def _assignment(self, run: Run) -> Assignment:
        own = [f"data.eval={HOLDOUT}", f"training.optimizer.lr={self._rate(run.multiple)}", f"training.seed={run.seed}"]
        epochs = self.plan.epochs[run.arm]
        overrides = (*self._lineup.overrides, *self._arms[run.arm].overrides, *own, f"training.epochs={epochs}")
        return Assignment(run, self.output, self.output / BASE, self._lineup.source, overrides, epochs)

    def _rate(self, multiple: float) -> float:
        return rate_of(self._recipe, multiple)

    def _outcome(self, result: Result) -> str:
        run, scores, metric = result.run, result.validation, self._metric
        found = metric.written(scores[metric.name], 2) if scores else f"none, {result.trouble}"
        return f"{run.arm}, learning rate {self._rate(run.multiple):g}, seed {run.seed}: {found}"

    def _validation(self, arm: str, multiple: float) -> float | None:
        return mean_validation(self._choosing(arm, multiple), self._metric)

    def _choosing(self, arm: str, multiple: float) -> list[Result]:
        """Return the results that say what an arm's learning rate is worth."""
        return [one for one in results_of(self.results, arm, multiple) if one.run.seed in self.plan.choosing]

    def _most_merit(self, arm: str, multiples: Sequence[float]) -> float:
        return max(multiples, key=lambda multiple: merit(self._choosing(arm, multiple), self._metric))

    def _best(self, arm: str, multiples: Sequence[float]) -> float:
        """Return the learning rate that an arm is scored with, by the mean over the seeds that choose."""
        best = self._most_merit(arm, multiples)
        if self._validation(arm, best) is None:
            trouble = next(result.trouble for result in results_of(self.results, arm) if result.trouble)
            raise SurgeonError(
                f"arm {arm} met NaN or infinity at every learning rate: {trouble}",
                hint="give lower ones, as --learning-rates 0.01,0.03,0.1",
            )
        return best

    def _beyond_the_edges(self, multiples: Sequence[float]) -> list[float]:
        """Return the learning rates to try next, for all arms, as the best of one has none on one side."""
        best = {self._most_merit(arm, multiples) for arm in self._arms}
        low, high, first = min(multiples), max(multiples), self.plan.first_multiples
        below = sum(multiple < first[0] for multiple in multiples)
        above = sum(multiple > first[-1] for multiple in multiples)
        more = [low / _GROWTH] if low in best and below < _MOST_GROWTH else []
        more += [high * _GROWTH] if high in best and above < _MOST_GROWTH else []
        return [float(f"{multiple:.6g}") for multiple in more]

    def _scores(self) -> tuple[Scored, dict[str, list[Scored]]]:
        """Score the original and the chosen runs, by the same code, on the split that has chosen nothing."""
        self._say(f"score the chosen runs on {self.plan.scored_on}")
        calls: list[tuple[Any, ...]] = [("", 0, self.output / BASE, self._recipe)]
        for name, multiple in self.chosen.items():
            for result in results_of(self.results, name, multiple):
                calls.append((name, result.run.seed, self.output / result.folder, self._recipe))
        found = {(name, seed): scored for name, seed, scored in self._crew.call(_score, calls)}
        return found["", 0], {name: [found[name, seed] for seed in self.plan.seeds] for name in self._arms}

    def _document(self, original: Scored, scored: dict[str, list[Scored]]) -> dict[str, Any]:
        metric, task, arms = self.plan.metric, task_scored_by(self.plan.metric), {}
        for name in self._arms:
            scores = [one.scores[metric] for one in scored[name]]
            means = {m: self._validation(name, m) for m in self.multiples}
            results = [result for m in self.multiples for result in results_of(self.results, name, m)]
            arms[name] = {
                "overrides": self._arms[name].changes,
                "multiple": self.chosen[name],
                "learning_rate": self._rate(self.chosen[name]),
                "validation": means[self.chosen[name]],
                "scores": scores,
                "mean": sum(scores) / len(scores),
                **(_NO_DIFFERENCE if name == PLAIN else against_plain(scored[PLAIN], scored[name], task)),
                "at_edge": self.chosen[name] in (self.multiples[0], self.multiples[-1]),
                "runs": len(results),
                "steps": sum(result.steps for result in results),
                "epochs": self.plan.epochs[name],
                "share_of_plains_time": self.plan.share_of_plains_time(name),
                "broken_off": sum(result.validation is None for result in results),
                "learning_rates": [{"learning_rate": self._rate(m), "validation": mean} for m, mean in means.items()],
                "valid_share": self._valid_share(name),
            }
        return {
            "arms": arms,
            "original": original.scores[metric],
            "untrained": self.plan.untrained,
            "base_seen": self.plan.base_seen,
            "seeds": self.plan.seeds,
            "choosing_seeds": self.plan.choosing,
            "metric": metric,
            "chosen_on": self.plan.chosen_on,
            "scored_on": self.plan.scored_on,
            "samples": original.scores["samples"],
            "budget": self.plan.budget,
            "grid": self.plan.learning_rates,
            "multiples": self.multiples,
        }

    def _valid_share(self, name: str) -> list[float] | None:
        """Return the chosen runs' mean share of units still valid at each step; None for an arm without episodes."""
        runs = [valid_share(self.output / r.folder) for r in results_of(self.results, name, self.chosen[name])]
        steps = min(map(len, runs))
        return [sum(run[step] for run in runs) / len(runs) for step in range(steps)] if steps > 1 else None

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


def _score(name: str, seed: int, folder: Path, recipe: Recipe) -> tuple[str, int, Scored]:
    return name, seed, score(folder, recipe)
