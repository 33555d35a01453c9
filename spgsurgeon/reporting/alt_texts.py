"""What a figure shows, in words and numbers, for those who can't see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spgsurgeon.comparing import metric_of
from spgsurgeon.runs import EpochRecord, RunRecord, step_labels
from spgsurgeon.tasks import Metric


def of_scores(runs: Sequence[RunRecord], metric: Metric) -> str:
    """Return each run's score before, at its best and last."""
    return "; ".join(f"{run.name}: {_scores(run, metric)}" for run in runs)


def _scores(run: RunRecord, metric: Metric) -> str:
    found = [(e.epoch, e.evaluation.get(metric.name)) for e in run.trained if e.evaluation]
    scores = [(epoch, score) for epoch, score in found if score is not None]
    original = (run.original or {}).get(metric.name)
    said = [] if original is None else [f"original {metric.written(original, 2)}"]
    if scores:
        epoch, best = max(scores, key=lambda point: metric.merit(point[1]))
        said += [f"best {metric.written(best, 2)} in epoch {epoch}", f"last {metric.written(scores[-1][1], 2)}"]
    return ", ".join(said) or "no score yet"


def of_course(runs: Sequence[RunRecord], key: str, unit: str = "") -> str:
    """Return where a number of each epoch begins and ends: `key` is its name in a line of metrics."""
    each = ((run.name, [getattr(epoch, key) for epoch in run.epochs]) for run in runs)
    return "; ".join(f"{name}: {values[0]:.3g}{unit} to {values[-1]:.3g}{unit}" for name, values in each)


def of_moments(runs: Sequence[RunRecord]) -> str:
    """Return the last changes of each run's moments."""
    said = []
    for run in runs:
        moments = run.cold[-1].moments
        values = {} if moments is None else dict(moments)
        numbers = [f"{name.replace('_', ' ')} {value:.3g}" for name, value in values.items() if value is not None]
        said.append(f"{run.name}: {', '.join(numbers) or 'not compared'}")
    return "; ".join(said)


def of_accuracies(run: RunRecord, accuracies: Mapping[int, float]) -> str:
    """Return the lowest and the highest accuracies of classes."""
    found = sorted(accuracies.items(), key=lambda one: one[1])
    return _ends([(run.class_name(label), f"{accuracy:.1f} %") for label, accuracy in found])


def of_validity(epoch: EpochRecord) -> str:
    """Return the share of units that is still valid at each step of an epoch."""
    return of_shares(step_labels(epoch), epoch.valid_share)


def of_shares(labels: Sequence[object], shares: Sequence[float]) -> str:
    """Return shares, percent, at the steps of these labels."""
    return ", ".join(f"{label}: {100 * share:.1f} %" for label, share in zip(labels, shares, strict=True))


def of_accepted(run: RunRecord, epoch: EpochRecord) -> str:
    """Return the mean episode length of the classes with the shortest and the longest episodes."""
    lengths = {
        label: sum(step * count for step, count in enumerate(row, start=1)) / sum(row)
        for label, row in enumerate(epoch.accepted_by_class)
        if sum(row)
    }
    found = sorted(lengths.items(), key=lambda one: one[1])
    return "mean episode length: " + _ends([(run.class_name(label), f"{length:.2f}") for label, length in found])


def _ends(rows: Sequence[tuple[str, str]]) -> str:
    """Return rows in words, of many the first and the last three."""
    shown = [f"{name} {value}" for name, value in rows]
    return ", ".join(shown if len(rows) <= 6 else [*shown[:3], "…", *shown[-3:]])


def of_comparison(name: str, document: Mapping[str, Any]) -> str:
    """Return what the figure of this name shows of a comparison."""
    arms: Mapping[str, Any] = document["arms"]
    return "; ".join(f"{arm}: {said}" for arm, found in arms.items() if (said := _of_arm(name, found, document)))


def _of_arm(name: str, arm: Mapping[str, Any], document: Mapping[str, Any]) -> str:
    metric = metric_of(document)
    if name == "scores":
        return f"mean {arm['mean']:.2f}, seeds {', '.join(f'{score:.2f}' for score in arm['scores'])}"
    if name == "learning-rates":
        tried = ((f"{p['learning_rate']:.3g}", p["validation"]) for p in arm["learning_rates"])
        return ", ".join(f"{rate}: {'broke off' if score is None else f'{score:.2f}'}" for rate, score in tried)
    if name == "valid-share":
        return of_shares(range(len(arm["valid_share"])), arm["valid_share"]) if arm["valid_share"] else ""
    found = arm["difference"]
    interval = f"{found['low']:+.2f} to {found['high']:+.2f}" if found else ""
    return f"{found['mean']:+.2f} {metric.difference}, {interval}, {arm['verdict']}" if found else ""
