"""Weights that several architectures fit, scored as each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from spgsurgeon.commands.evaluate import evaluate_model
from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.models import differences, known_traits, resolve_architecture
from spgsurgeon.tasks import task_named

_ONCE = ("model", "data", "task", "samples", "notes")


def evaluate_candidates(
    asked: EvaluationRequest, archs: Sequence[str], *, told: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Return the document of `eval --json` for several `--arch`: the scores of each, and what differs between them.

    All that `evaluate_model` raises for one of them is raised.
    """
    names = list(dict.fromkeys("/".join(resolve_architecture(arch)) for arch in archs))
    found = {name: evaluate_model(replace(asked, arch=name), told=told) for name in names}
    first = found[names[0]]
    traits = {name: known_traits()[name] for name in names if name in known_traits()}
    notes = dict.fromkeys(note for document in found.values() for note in document["notes"])
    return {
        **{key: first[key] for key in _ONCE if key != "notes"},
        "candidates": [
            {"arch": name, **{key: value for key, value in document.items() if key not in _ONCE}}
            for name, document in found.items()
        ],
        "differences": differences(traits) if len(traits) > 1 else {},
        "notes": [*notes, _said(found, first["task"])],
    }


def _said(found: dict[str, dict[str, Any]], task: str) -> str:
    """Return the note on which of them scores best."""
    metric = task_named(task).primary
    scores = {name: document[metric.name] for name, document in found.items()}
    best = (max if metric.higher_is_better else min)(scores.values())
    names = [name for name, score in scores.items() if score == best]
    if len(names) == len(scores) > 1:
        return f"they score alike by {metric.label}, so this data does not tell which it is"
    return f"by {metric.label} {names[0]} fits best; that it is the one is likely if the others are far behind"
