"""The model card of a stripped base."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spgsurgeon import __version__
from spgsurgeon.commands.measured import basis_of_run, control_of, evaluation_of, is_run, scores_of
from spgsurgeon.commands.stripping.written import (
    Patient,
)
from spgsurgeon.exporting import model_card
from spgsurgeon.models import (
    CHOICE,
    PIPELINES,
    QUESTION,
    SamplePreprocessing,
    SoundPreprocessing,
    TextPreprocessing,
    library,
)
from spgsurgeon.runs import recipe_of


def _public_name(source: str) -> str:
    """Return a model's name, or the last part of a local path: a card is published, the rest of the path is not."""
    return Path(source).name if Path(source).is_absolute() else source


def _in_the_hub(patient: Patient) -> dict[str, Any]:
    """Return what a card says of the task in the Hub's words, and how the model is used."""
    if patient.of_transformers:
        name = library("transformers").task(patient.identity.architecture)
        has_one = name not in (CHOICE, QUESTION)  # transformers 5 has none for these
        pipeline = f'predict = transformers.pipeline("{PIPELINES[name]}", model=".")\n' if has_one else ""
        return {"pipeline_tag": PIPELINES[name], "usage": pipeline}
    assert patient.task is not None
    return {"pipeline_tag": patient.task.pipeline_tag, "usage": patient.task.usage}


def _prepares(preprocessing: SamplePreprocessing | None) -> str | None:
    """Return the class of transformers that makes what a graph takes of samples; None for images."""
    if isinstance(preprocessing, TextPreprocessing):
        return "AutoTokenizer"
    return "AutoFeatureExtractor" if isinstance(preprocessing, SoundPreprocessing) else None


def card_of(
    patient: Patient, source: Path, proof: dict[str, bool], formats: Sequence[str], graph_inputs: Sequence[str]
) -> str:
    """Return the README.md that goes beside the written files; `graph_inputs` are the names of what a graph takes."""
    identity = patient.identity
    base = patient.manifest.base if patient.manifest else {}
    recipe, task = (recipe_of(source) if is_run(source) else None), patient.task
    return model_card(
        architecture=identity.architecture,
        library=identity.library,
        num_classes=identity.num_classes,
        builder_arguments=library(identity.library).builder_arguments(identity, len(patient.grafted_outputs)),
        replicas=patient.replicas,
        **_in_the_hub(patient),
        recipe=recipe,
        scores=scores_of(source, task) if task else None,
        **_measured(source),
        higher_is_better=task is None or task.primary.higher_is_better,
        proof=dict(proof),
        content_hash=patient.content_hash,
        base_source=_public_name(base["source"]) if base else None,
        base_content_hash=base.get("content_hash"),
        base_model=base.get("hub_id"),
        license=patient.config.get("pretrained_cfg", {}).get("license"),
        base_notes=base.get("notes", []),
        evaluation=evaluation_of(source, task) if task else None,
        control=control_of(source),
        package_version=__version__,
        formats=formats,
        graph_inputs=graph_inputs,
        prepare=_prepares(patient.preprocessing),
    )


def _measured(source: Path) -> dict[str, Any]:
    """Return what a card says of the model before the run."""
    basis = basis_of_run(source)
    return {} if basis is None else {"measured_against": basis.name, "no_original": basis.said}
