"""The model card: a Hub README.md saying what a checkpoint is, how to load it, what was measured and proven."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from spgsurgeon.replicas.kinds import DEFAULT, kind_named

DECIMALS = 3

_NOT_RETRAINED = "It was **not retrained**: spgsurgeon added its temporary modules and took them away again"

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
import transformers

model = transformers.{architecture}.from_pretrained(".").eval()
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
    higher_is_better: bool = True,
    proof: Mapping[str, bool | str] | None = None,
    builder_arguments: Mapping[str, Any] | None = None,
    replicas: str | None = None,
    pipeline_tag: str | None = None,
    usage: str = "",
    formats: Sequence[str] = ("safetensors",),
) -> str:
    """Return the README.md of a Hub folder: YAML front matter, then Markdown. The same arguments give the same text.

    `library` is timm, torchvision or transformers; `builder_arguments` are what its builder needs beyond the number of
    classes, and `usage` what is to be known of the model that it makes. `recipe` is the resolved recipe as YAML;
    without one the weights were not retrained. `base_notes` say what was done to the base before it was grafted, such
    as a new head.
    `scores` holds `original` (before retraining) and `best`, each {metric: value}; the first metric, better when higher
    or when lower, decides whether there is a gain. `proof` says of each law whether it holds, or how far. `replicas`
    says what the temporary modules were, `pipeline_tag` what the Hub calls the task, `formats` what was written. What
    is None is named as missing; nothing else is claimed.
    """
    retrained, method = _retrained(recipe)
    sections = [
        _front_matter(library, pipeline_tag),
        f"# {architecture}{retrained}\n",
        _summary(method, base_notes),
        _identity_table(architecture, library, num_classes, base_source, base_content_hash, content_hash, replicas),
        "## Use\n\nIn this folder:\n\n"
        + _fenced(
            "python",
            _ONNX_USAGE
            if list(formats) == ["onnx"]
            else _usage(architecture, library, num_classes, builder_arguments or {}) + usage,
        ),
        "## Scores\n\n" + _scores(scores, higher_is_better),
        "## Proof\n\n" + _proof(proof),
        "## Recipe\n\n" + (_fenced("yaml", recipe) if recipe else "No recipe was recorded.\n"),
        f"Written by spgsurgeon {package_version}.\n",
    ]
    return "\n".join(sections)


def _front_matter(library: str, pipeline_tag: str | None) -> str:
    tag = [pipeline_tag] if pipeline_tag else []
    fields: dict[str, Any] = {"library_name": library} | ({"pipeline_tag": pipeline_tag} if tag else {})
    fields["tags"] = [*tag, library, "spgsurgeon", "sequential-policy-gradient"]
    return f"---\n{yaml.safe_dump(fields, sort_keys=False)}---\n"


def _summary(method: str, base_notes: Sequence[str]) -> str:
    summary = (
        "The architecture, the keys and the shapes are exactly those of the base that was grafted. "
        f"{method}. The licence of the weights is that of the base checkpoint.\n"
    )
    notes = "".join(f"- {note}\n" for note in base_notes)
    return summary + (f"\nOf the base:\n\n{notes}" if notes else "")


def _retrained(recipe: str | None) -> tuple[str, str]:
    """Return how the weights were made: what follows the name in the title, and a sentence."""
    if recipe is None:
        return "", _NOT_RETRAINED
    kind = kind_named(yaml.safe_load(recipe).get("trp", {}).get("kind", DEFAULT))
    return f", retrained {kind.retrained}", f"Only values changed: it was retrained {kind.method}"


def _identity_table(
    architecture: str,
    library: str,
    num_classes: int,
    base_source: str,
    base_content_hash: str,
    content_hash: str,
    replicas: str | None,
) -> str:
    rows = {
        "architecture": f"`{architecture}` ({library})",
        "classes": str(num_classes),
        "content hash": f"`{content_hash}`",
        "base": f"`{base_source}`",
        "content hash of the base that was grafted": f"`{base_content_hash}`",
    }
    if replicas is not None:
        rows["temporary modules, gone"] = replicas
    return _table(("", ""), list(rows.items()))


def _usage(architecture: str, library: str, num_classes: int, builder_arguments: Mapping[str, Any]) -> str:
    if library == "timm":
        return _TIMM_USAGE
    if library == "transformers":
        return _TRANSFORMERS_USAGE.format(architecture=architecture)
    keywords = {"weights": None, "num_classes": num_classes, **builder_arguments}
    arguments = ", ".join([f'"{architecture}"', *(f"{name}={value!r}" for name, value in keywords.items())])
    return _TORCHVISION_USAGE.format(arguments=arguments)


def _scores(scores: Mapping[str, Mapping[str, float]] | None, higher_is_better: bool) -> str:
    original, best = (scores or {}).get("original", {}), (scores or {}).get("best", {})
    metrics = [metric for metric in best if metric in original]
    if not metrics:
        return "No scores before and after were recorded, so no gain is claimed.\n"
    rows = [
        (metric, _number(original[metric]), _number(best[metric]), f"{_change(original, best, metric):+.{DECIMALS}f}")
        for metric in metrics
    ]
    return (
        _table(("metric", "original", "best", "change"), rows)
        + f"\n{_verdict(original, best, metrics[0], higher_is_better)} These are the scores of one run, and its best "
        "checkpoint was chosen by them. They don't tell how much plain retraining would have changed.\n"
    )


def _verdict(original: Mapping[str, float], best: Mapping[str, float], metric: str, higher_is_better: bool) -> str:
    change = _change(original, best, metric)
    before_after = f"{metric} was {_number(original[metric])} and is {_number(best[metric])}"
    if (change if higher_is_better else -change) > 0:  # false for a NaN as well
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
