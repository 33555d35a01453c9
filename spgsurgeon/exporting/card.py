"""The model card: a Hub README.md saying what a checkpoint is, how to load it, what was measured and proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from spgsurgeon.models.sites.transformers_heads import CHOICE, PIPELINES

PRIMARY_METRICS = ("top1", "mean_iou")  # the one that decides whether there is a gain; both are better when larger
DECIMALS = 3

# By how the weights were made: what follows the name in the title, and one sentence or two.
_RETRAINED = {
    "spg": (
        ", retrained with SPG",
        "Only values changed: it was retrained with Sequential Policy Gradient (arXiv 2506.15051) by spgsurgeon, whose "
        "temporary modules are gone",
    ),
    "plain": (", retrained plainly", "Only values changed: it was retrained by spgsurgeon without its method"),
    "dropout": (
        ", retrained with dropout",
        "Only values changed: it was retrained by spgsurgeon without its method, with dropout of a fixed rate on what "
        "its head reads",
    ),
    "none": ("", "It was **not retrained**: spgsurgeon added its temporary modules and took them away again"),
}

_TIMM_USAGE = """\
import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()  # or "hf-hub:OWNER/NAME"
data_config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**data_config, is_training=False)
"""

_TORCHVISION_USAGE = """\
import torchvision
from safetensors.torch import load_file

model = torchvision.models.get_model({arguments})
model.load_state_dict(load_file("model.safetensors"))
model.eval()
"""

_ONNX_USAGE = """\
import onnxruntime

session = onnxruntime.InferenceSession("model.onnx")
print(session.get_inputs()[0].shape)  # of `images`: float32, normalised as pretrained_cfg in config.json says
(logits,) = session.run(["logits"], {"images": images})
"""

_TRANSFORMERS_USAGE = """\
from transformers import {architecture}, pipeline

model = {architecture}.from_pretrained(".").eval()
"""

_SEGMENTATION_USAGE = """\
# model(images)["out"] is [N, classes, height, width]
"""


def model_card(
    *,
    architecture: str,
    library: str,
    num_classes: int,
    base_source: str,
    base_content_hash: str,
    content_hash: str,
    package_version: str,
    base_notes: Sequence[str] = (),
    recipe: str | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    proof: Mapping[str, bool | str] | None = None,
    model_args: Mapping[str, Any] | None = None,
    trp: Mapping[str, Any] | None = None,
    task: str = "classification",
    formats: Sequence[str] = ("safetensors",),
) -> str:
    """Return the README.md of a Hub folder: YAML front matter, then Markdown. The same arguments give the same text.

    `library` is timm or torchvision; `model_args` are what its builder needs beyond the number of classes. `recipe` is
    the resolved recipe as YAML; without one the weights were not retrained. `base_notes` say what was done to the base
    before it was grafted, such as a new head. `scores` holds `original` (before retraining) and `best`, each
    {metric: value}. `proof` says of each law whether it holds, or how far. `trp` is the `kind` of the temporary modules
    and their settings, `task` classification or segmentation, `formats` what was written. What is None is named as
    missing; nothing else is claimed.
    """
    pipeline_tag = PIPELINES[task] if library == "transformers" else f"image-{task}"
    method = "none" if recipe is None else _method(recipe)
    sections = [
        _front_matter(library, pipeline_tag),
        f"# {architecture}{_RETRAINED[method][0]}\n",
        _summary(_RETRAINED[method][1], base_notes),
        _identity_table(architecture, library, num_classes, base_source, base_content_hash, content_hash, trp),
        "## Use\n\nIn this folder:\n\n"
        + _fenced(
            "python",
            _ONNX_USAGE if list(formats) == ["onnx"] else _usage(architecture, library, num_classes, model_args, task),
        ),
        "## Scores\n\n" + _scores(scores),
        "## Proof\n\n" + _proof(proof),
        "## Recipe\n\n" + (_fenced("yaml", recipe) if recipe else "No recipe was recorded.\n"),
        f"Written by spgsurgeon {package_version}.\n",
    ]
    return "\n".join(sections)


def _front_matter(library: str, pipeline_tag: str) -> str:
    fields = {
        "library_name": library,
        "pipeline_tag": pipeline_tag,
        "tags": [pipeline_tag, library, "spgsurgeon", "sequential-policy-gradient"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _summary(method: str, base_notes: Sequence[str]) -> str:
    summary = (
        "The architecture, the keys and the shapes are exactly those of the base that was grafted. "
        f"{method}. The licence of the weights is that of the base checkpoint.\n"
    )
    notes = "".join(f"- {note}\n" for note in base_notes)
    return summary + (f"\nOf the base:\n\n{notes}" if notes else "")


def _method(recipe: str) -> str:
    """Return what a recipe retrains with: one of `_RETRAINED`."""
    kind = str((yaml.safe_load(recipe).get("trp") or {}).get("kind"))
    return {"none": "plain", "fixed-dropout": "dropout"}.get(kind, "spg")


def _identity_table(
    architecture: str,
    library: str,
    num_classes: int,
    base_source: str,
    base_content_hash: str,
    content_hash: str,
    trp: Mapping[str, Any] | None,
) -> str:
    rows = {
        "architecture": f"`{architecture}` ({library})",
        "classes": str(num_classes),
        "content hash": f"`{content_hash}`",
        "base": f"`{base_source}`",
        "content hash of the base that was grafted": f"`{base_content_hash}`",
    }
    if trp is not None and "replicas" in trp:
        rows["temporary modules, gone"] = _replicas(trp)
    return _table(("", ""), list(rows.items()))


def _replicas(trp: Mapping[str, Any]) -> str:
    """Return the kind of the replicas and their settings: `3 dropout replicas: rate 0.2`."""
    settings = {key: value for key, value in trp.items() if key not in ("kind", "replicas")}
    words = [f"{name} {' '.join(map(str, v)) if isinstance(v, (list, tuple)) else v}" for name, v in settings.items()]
    return f"{trp['replicas']} {trp['kind']} replicas" + (f": {', '.join(words)}" if words else "")


def _usage(architecture: str, library: str, num_classes: int, model_args: Mapping[str, Any] | None, task: str) -> str:
    if library == "timm":
        return _TIMM_USAGE
    if library == "transformers":
        return _transformers_usage(architecture, task)
    keywords: dict[str, Any] = {"weights": None, "num_classes": num_classes}
    if task == "segmentation":
        keywords["weights_backbone"] = None  # left out, torchvision downloads those of the classifier
    keywords |= model_args or {}
    arguments = ", ".join([f'"{architecture}"', *(f"{name}={value!r}" for name, value in keywords.items())])
    usage = _TORCHVISION_USAGE.format(arguments=arguments)
    return usage + _SEGMENTATION_USAGE if task == "segmentation" else usage


def _transformers_usage(architecture: str, task: str) -> str:
    usage = _TRANSFORMERS_USAGE.format(architecture=architecture)
    if task == CHOICE:  # transformers has no pipeline for it
        return usage.replace(", pipeline", "")
    return usage + f'predict = pipeline("{PIPELINES[task]}", model=".")\n'


def _scores(scores: Mapping[str, Mapping[str, float]] | None) -> str:
    original, best = (scores or {}).get("original", {}), (scores or {}).get("best", {})
    metrics = [metric for metric in best if metric in original]
    if not metrics:
        return "No scores before and after were recorded, so no gain is claimed.\n"
    rows = [
        (metric, _number(original[metric]), _number(best[metric]), f"{_change(original, best, metric):+.{DECIMALS}f}")
        for metric in metrics
    ]
    primary = next((metric for metric in PRIMARY_METRICS if metric in metrics), metrics[0])
    return (
        _table(("metric", "original", "best", "change"), rows)
        + f"\n{_verdict(original, best, primary)} These are the scores of one run, and its best checkpoint was chosen "
        "by them. They don't tell how much plain retraining would have changed.\n"
    )


def _verdict(original: Mapping[str, float], best: Mapping[str, float], metric: str) -> str:
    change = _change(original, best, metric)
    before_after = f"{metric} was {_number(original[metric])} and is {_number(best[metric])}"
    if change > 0:  # false for a NaN as well
        return f"Gain: {before_after} ({change:+.{DECIMALS}f})."
    return f"**No gain**: {before_after} ({change:+.{DECIMALS}f})."


def _change(original: Mapping[str, float], best: Mapping[str, float], metric: str) -> float:
    """Return the change at the precision that is shown, so that a gain too small to see is none."""
    return round(best[metric] - original[metric], DECIMALS) + 0.0  # + 0.0 turns -0.0 into 0.0


def _number(value: float) -> str:
    return f"{value:.{DECIMALS}f}"


def _proof(proof: Mapping[str, bool | str] | None) -> str:
    if not proof:
        return "No proof was recorded.\n"
    words = {True: "holds", False: "**does not hold**"}
    return _table(("law", ""), [(law, words[v] if isinstance(v, bool) else v) for law, v in proof.items()])


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```\n"
