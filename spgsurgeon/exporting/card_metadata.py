"""What the Hub reads of a model card: huggingface_hub's fields, filled with what is known and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # which it doesn't list as its own

DECIMALS = 3

_LICENSES = frozenset(
    (
        *(
            "apache-2.0",
            "mit",
            "bsd-2-clause",
            "bsd-3-clause",
            "afl-3.0",
            "gpl-3.0",
            "lgpl-3.0",
            "agpl-3.0",
            "openrail",
        ),
        *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"),
        *("gemma", "apple-ascl", "apple-amlr"),
    )
)
"""What the Hub calls the licenses of timm's weights, and others that are common; the rest is `other`, with its name."""


@dataclass(frozen=True)
class Evaluation:
    """What scores are of: a data set, by the name of its source, and its split; `hub_id` is its name on the Hub."""

    source: str
    name: str
    split: str
    hub_id: str | None = None
    hub_metrics: Mapping[str, str] = field(default_factory=dict)
    """What the Hub calls a metric, of those it has a name for."""
    percent: frozenset[str] = frozenset()
    """The metrics that are percentages."""


def metadata(
    architecture: str,
    library: str,
    pipeline_tag: str | None,
    base_model: str | None,
    license: str | None,
    scores: Mapping[str, float],
    evaluation: Evaluation | None,
) -> ModelCardData:
    """Return the front matter. `scores` are the model's own; without an `evaluation` they are left out."""
    return ModelCardData(
        base_model=base_model,
        license=license if license is None or license in _LICENSES else "other",
        license_name=None if license in _LICENSES else license,
        library_name=library,
        pipeline_tag=pipeline_tag,
        tags=[*([pipeline_tag] if pipeline_tag else []), library, "spgsurgeon", "sequential-policy-gradient"],
        **(_measured(architecture, pipeline_tag, scores, evaluation) if evaluation else {}),
    )


def on_hub(name: str | None) -> str | None:
    """Return the name of a repository on the Hub; None for what can't be one."""
    try:
        validate_repo_id(name or "")
    except HFValidationError:
        return None
    return name


def _measured(
    architecture: str, task: str | None, scores: Mapping[str, float], evaluation: Evaluation
) -> dict[str, Any]:
    """Return the fields on data and scores; a score that is not finite is not among them."""
    known, hub_id = evaluation.hub_metrics, on_hub(evaluation.hub_id)
    results = [
        EvalResult(
            task_type=task or "other",
            dataset_type=hub_id or evaluation.source,
            dataset_name=evaluation.name,
            dataset_split=evaluation.split,
            metric_type=known.get(metric, metric),
            metric_name=f"{metric} (%)" if metric in evaluation.percent else metric,
            metric_value=round(score, DECIMALS),
        )
        for metric, score in scores.items()
        if math.isfinite(score)
    ]
    return {
        "datasets": [hub_id] if hub_id else None,
        "metrics": [name for metric, name in known.items() if metric in scores] or None,
        "eval_results": results or None,
        "model_name": architecture if results else None,
    }
