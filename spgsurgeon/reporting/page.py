"""The page: everything in one HTML file that loads nothing. The template escapes whatever comes from files."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from spgsurgeon.comparing import ComparisonRecord
from spgsurgeon.reporting.class_scores import confusion_rows
from spgsurgeon.reporting.comparison_page import comparison_section
from spgsurgeon.reporting.gallery import Drawing
from spgsurgeon.reporting.style import accent
from spgsurgeon.runs import METRICS, EpochRecord, RunRecord, in_words

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_MISSING = "-"


def render_page(
    runs: Sequence[RunRecord],
    drawings: Sequence[Drawing],
    comparisons: Sequence[ComparisonRecord] = (),
    *,
    package_version: str,
) -> str:
    """Return the page about `runs` and `comparisons`, with these figures. The same arguments give the same text."""
    return _ENVIRONMENT.get_template("page.html").render(
        version=package_version,
        names=[*(comparison.name for comparison in comparisons), *(run.name for run in runs)],
        contents=" and ".join(
            f"{len(found)} {word}{'s' if len(found) > 1 else ''}"
            for found, word in ((comparisons, "comparison"), (runs, "run"))
            if found
        ),
        comparisons=[comparison_section(comparison) for comparison in comparisons],
        runs=[_card(run) for run in runs],
        drawings=drawings,
        classed=[(run, confusion_rows(run)) for run in runs if _has_classes(run, drawings)],
        episodes=[run for run in runs if run.accepts and run.played],
        plain=[run.name for run in runs if not run.accepts],
        incidents=[(run.name, text) for run in runs for text in _incidents(run)],
        speed=[(run, _speed(run.epochs)) for run in runs if run.epochs],
        pictured=[(run, _pictures(run)) for run in runs if run.pictures],
        recorded=[run for run in runs if run.least_accepted],
        settings=_settings(runs),
        starts=[(run, _changes(run.starts)) for run in runs if run.starts],
        accent=accent,
        data_uri=_data_uri,
    )


def _has_classes(run: RunRecord, drawings: Sequence[Drawing]) -> bool:
    return any(drawing.section == "classes" and drawing.about is run for drawing in drawings)


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _card(run: RunRecord) -> dict[str, Any]:
    return {
        "run": run,
        "metric": run.metric.title if run.metric else None,
        "scores": _scores(run, run.metric.name) if run.metric else [],
        "progress": f"{run.done} of {run.planned} epochs" + _how_it_ended(run),
        "before": " and ".join(f"{count} {kind}" for kind, count in _before(run).items() if count),
    }


def _how_it_ended(run: RunRecord) -> str:
    if run.done >= run.planned:
        return ""
    return ", stopped early" if run.stopped_early else ", not finished"


def _before(run: RunRecord) -> dict[str, int]:
    """Return how many epochs came before the training proper, by what they are."""
    return {"of a head start": run.head_epochs, "cold": run.cold_epochs}


def _scores(run: RunRecord, metric: str) -> list[tuple[str, str, str | None]]:
    """Return name, score and its difference to what it is measured against."""
    rows = []
    basis = _number(run.basis.scores, metric)
    named = {"original": run.original, "head start": run.started, "best": run.best, "last": run.last}
    for name, scores in named.items():
        if name == "head start" and scores is None:
            continue
        score = _number(scores, metric)
        change = None
        if name in ("best", "last") and score is not None and basis is not None:
            change = f"{score - basis:+.2f}"
        rows.append((name, _MISSING if score is None else f"{score:.2f}", change))
    return rows


def _number(scores: Mapping[str, Any] | None, metric: str) -> float | None:
    return None if scores is None else scores.get(metric)


def _incidents(run: RunRecord) -> list[str]:
    """Return what went wrong or could not be read, a sentence each."""
    found = list(run.notes)
    if run.basis.said:
        against = f"; differences are to {run.basis.name}" if run.basis.scores else ""
        found.append(f"{run.basis.said[0].upper()}{run.basis.said[1:]}{against}.")
    kinds: dict[str, Callable[[EpochRecord], int]] = {
        "step was skipped,steps were skipped": lambda epoch: epoch.skipped_steps,
        "sample could not be read,samples could not be read": lambda epoch: epoch.unreadable_pictures,
    }
    for words, count in kinds.items():
        totals = [0, *map(count, run.epochs)]
        if total := totals[-1]:
            there = [e for e, (before, now) in zip(run.epochs, pairwise(totals), strict=True) if now > before]
            found.append(f"{total} {words.split(',')[total != 1]}, in {in_words(there)}.")
    if run.damaged_lines:
        numbers = ", ".join(map(str, run.damaged_lines))
        lines = f"line {numbers} is" if len(run.damaged_lines) == 1 else f"lines {numbers} are"
        found.append(f"{METRICS} is damaged: {lines} left out here.")
    if not run.original:
        found.append("The run has no score yet: its first evaluation has not ended.")
    elif not run.epochs and not run.damaged_lines:
        found.append("No epoch is recorded yet: there is the score of the original, and no more.")
    return found


def _speed(epochs: Sequence[EpochRecord]) -> list[tuple[str, str]]:
    """Return a run's throughput by name: medians over its epochs."""
    waited = sum(epoch.data_seconds for epoch in epochs) / sum(epoch.seconds for epoch in epochs)
    return [
        ("samples a second", f"{median(epoch.images_per_second for epoch in epochs):,.0f}"),
        ("seconds an epoch", f"{median(epoch.seconds for epoch in epochs):,.3g}"),
        ("peak memory", f"{max(epoch.peak_memory_bytes for epoch in epochs) / 1e9:.2f} GB"),
        ("waiting for data", f"{100 * waited:.1f} %"),
    ]


def _pictures(run: RunRecord) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return the images of shortest and of longest episodes, each as what stands below it."""
    groups = []
    for title, shortest in (("Shortest episodes", True), ("Longest episodes", False)):
        tiles = [
            {
                "name": shown.picture.name,
                "short_name": "/".join(Path(shown.picture.name).parts[-2:]),
                "label": run.class_name(shown.picture.label),
                "predicted": None if shown.picture.predicted is None else run.class_name(shown.picture.predicted),
                "length": shown.picture.length,
                "entropy": f"{shown.picture.cross_entropy:.3g}",
                "jpeg": shown.jpeg,
                "few_pixels": shown.few_pixels,
            }
            for shown in run.pictures
            if shown.shortest is shortest
        ]
        if tiles:
            groups.append((title, tiles))
    return groups


def _settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[str], bool]]:
    """Return every key of the recipes with its value in each run, and whether these differ; those that do first."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [(key, [run.settings.get(key, _MISSING) for run in runs]) for key in keys]
    marked = [(key, values, len(set(values)) > 1) for key, values in rows]
    return sorted(marked, key=lambda row: not row[2])


def _changes(starts: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Return the first start whole, and of each later one what changed since the one before, and its step."""
    changes = [dict(starts[0])]
    for before, after in pairwise(starts):
        changes.append({name: value for name, value in after.items() if name == "step" or before.get(name) != value})
    return changes
