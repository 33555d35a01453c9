"""The dropout rate searched for, at the cost of one run: random rates, and successive halving of their epochs."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spgsurgeon.errors import UsageError
from spgsurgeon.runs import METRICS, last_of, read_epochs, read_run_state
from spgsurgeon.runtime import derive_seed, extra_hint
from spgsurgeon.tasks import LOSS, Scores, task_of
from spgsurgeon.training import NonFiniteError, train

HIGHEST_RATE = 0.8


@dataclass
class Search:
    """What a search found: the scores of its best trial's best epoch, None if each trial met NaN or infinity."""

    folder: Path
    best: Scores | None = None
    trials: list[Path] = field(default_factory=list)
    trouble: str | None = None


def check_search() -> None:
    """Raise UsageError if optuna is not installed."""
    if importlib.util.find_spec("optuna") is None:
        hint = extra_hint("search")
        raise UsageError(
            "the search arm needs the package optuna, which is not installed", hint=hint, code="missing-package"
        )


def search(folder: Path, base: str, recipe: str, overrides: Sequence[str], epochs: int, seed: int) -> Search:
    """Try rates of fixed dropout for as many epochs in all, half of them at most for one, each a run in `folder`.

    The head start of the first one is that of any run; those of the others count among the epochs.
    Rates are drawn evenly from 0 to `HIGHEST_RATE`; asynchronous successive halving, by the scores on data.eval, stops
    the worse half of the trials after 1, 2, 4, ... epochs. A search that has begun goes on where it was.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize",
        sampler=optuna.samplers.RandomSampler(seed=derive_seed(seed, "search") % 2**32),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=2),
    )
    found, left, start = Search(folder), epochs, 0
    while left > start:
        trial = study.ask()
        planned = min(math.ceil(epochs / 2), left - start)
        settings = [f"trp.rate={trial.suggest_float('rate', 0.0, HIGHEST_RATE)}", f"training.epochs={planned}"]
        run = folder / f"trial-{trial.number}"
        halving, broken = _Halving(trial), False
        try:
            _train(run, base, recipe, [*overrides, *settings], halving, planned)
            study.tell(trial, halving.score)
        except _StoppedTrial:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        except NonFiniteError as error:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            found.trouble, broken = error.message, True
        found.trials.append(run)
        left -= halving.epochs + start + broken  # one that broke off has cost the epoch it was in, too
        start = halving.head_epochs
        best = _counters(run)["best"] if halving.epochs and not broken else None  # as of any run that broke off
        if best is not None and (found.best is None or _key(best) > _key(found.best)):
            found.folder, found.best = run, best
    found.trouble = None if found.best else found.trouble
    return found


class _StoppedTrial(Exception):  # noqa: N818 - no error, but the training is to close its files as after one
    """The pruner's word, on its way out of the training."""


class _Halving:
    """The loop's `Progress`, which lets the pruner stop a trial at an epoch's end."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial
        self.epochs = self.head_epochs = 0
        self.score = -math.inf

    def epoch(self, metrics: dict[str, Any]) -> None:
        """Tell the pruner of the epoch, and stop where it says so."""
        self.head_epochs += metrics["phase"] == "head"
        if metrics["phase"] == "train":
            self.add(_key(metrics["evaluation"])[0])

    def add(self, score: float) -> None:
        """Count a training epoch by its score, larger for a better one."""
        self.epochs += 1
        self.score = max(self.score, score)
        self._trial.report(score, self.epochs)
        if self._trial.should_prune():
            raise _StoppedTrial

    def start(self, steps: int, done: int) -> None:
        """Nothing is said of it."""

    def original(self, scores: Scores) -> None:
        """Nothing is said of it."""

    def advance(self) -> None:
        """Nothing is said of it."""

    def warning(self, text: str) -> None:
        """Nothing is said of it."""


def _train(run: Path, base: str, recipe: str, overrides: list[str], halving: _Halving, planned: int) -> None:
    """Train the trial, or what is left of it after its last checkpoint: the epochs before it are told once more."""
    if not run.exists() or last_of(run) is None:  # also where it was killed before its first checkpoint
        train(base, recipe=recipe, overrides=overrides, output=run, progress=halving, force=True)
        return
    counters = _counters(run)
    halving.head_epochs = counters.get("head_epochs", 0)
    done = counters.get("epoch", 0) - counters.get("cold_epochs", 0) - counters.get("head_epochs", 0)
    for epoch in read_epochs(run / METRICS)[0]:
        if epoch.phase == "train" and epoch.epoch <= done and epoch.evaluation is not None:
            halving.add(_key(epoch.evaluation)[0])
    if halving.epochs < planned:
        train(output=run, resume=True, progress=halving)


def _counters(run: Path) -> dict[str, Any]:
    last = last_of(run)
    return dict(read_run_state(last)["counters"]) if last else {}


def _key(scores: Scores) -> tuple[float, float]:
    """Return what trials are ordered by, larger for a better one: the score, and of equal ones the loss."""
    task = task_of(scores)
    assert task is not None, "a trial has the scores of its task"
    loss = scores.get(LOSS.name, 0.0)  # None if it was infinite, which JSON has no number for
    return task.primary.merit(scores[task.primary.name]), LOSS.merit(math.inf if loss is None else loss)
