"""The model card: a Hub README.md saying what a checkpoint is, how to load it, what was measured and proven.

huggingface_hub writes the metadata and fills in the template; what is ours is which facts there are, and their words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from spgsurgeon.exporting.card_metadata import DECIMALS, Evaluation, metadata, on_hub
from spgsurgeon.exporting.layout import GRAPHS
from spgsurgeon.replicas.kinds import DEFAULT, kind_named

_TEMPLATE = Path(__file__).with_name("card_template.md")
_NOT_RETRAINED = "It was **not retrained**: spgsurgeon added its temporary modules and took them away again"
_FROM_A_FILE = "Its temporary modules were taken out of a state dict, which does not say how it was trained"
_LAWS = {
    "layout_is_the_architectures": "keys, order, shapes and dtypes are those of the architecture",
    "layout_is_the_originals": "keys, order, shapes and dtypes are those of the model that was grafted",
    "layout_is_the_references": "keys, order, shapes and dtypes are those of the reference",
    "layout_equal": "keys, order, shapes and dtypes are those from before stripping",
    "no_hooks_left": "nothing of the graft is left in the model: no module, no hook",
    "eval_outputs_equal": "in evaluation it gives the grafted model's outputs, bit for bit",
    "file_read_back_equal": "the written file, read back, has the same bits",
    "onnx_agrees": "the ONNX file agrees with the model to float rounding, at several sizes of inputs",
    "onnx_agrees_in_half_precision": "the ONNX file (half precision) agrees with the model to 1 % of its largest logit",
    "pt2_agrees": "the .pt2 file, read back, agrees with the model to float rounding, at several sizes of inputs",
    "pt2_agrees_in_half_precision": "the .pt2 file (half precision) agrees with the model to 1 % of its largest logit",
}
"""Keys of a proof, in words."""

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

_PROGRAM_USAGE = """\
import torch

model = torch.export.load("model.pt2").module()
logits = model(images)  # float32 [N, channels, height, width], normalised as pretrained_cfg in config.json says
"""

_PREPARED_ONNX_USAGE = """\
import onnxruntime
import transformers

session = onnxruntime.InferenceSession("model.onnx")
prepare = transformers.{prepare}.from_pretrained(".")
inputs = prepare(samples, padding=True, return_tensors="np")
found = session.run(None, {{value.name: inputs[value.name] for value in session.get_inputs()}})
"""

_PREPARED_PROGRAM_USAGE = """\
import torch
import transformers

model = torch.export.load("model.pt2").module()
prepare = transformers.{prepare}.from_pretrained(".")
inputs = prepare(samples, padding=True, return_tensors="pt")
found = model(*(inputs[name] for name in {names}))
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
    base_source: str | None,
    base_content_hash: str | None,
    content_hash: str,
    package_version: str,
    base_model: str | None = None,
    license: str | None = None,
    base_notes: Sequence[str] = (),
    recipe: str | None = None,
    scores: Mapping[str, Mapping[str, float]] | None = None,
    higher_is_better: bool = True,
    evaluation: Evaluation | None = None,
    control: str | None = None,
    measured_against: str = "the original",
    no_original: str | None = None,
    proof: Mapping[str, bool | str] | None = None,
    builder_arguments: Mapping[str, Any] | None = None,
    replicas: str | None = None,
    pipeline_tag: str | None = None,
    usage: str = "",
    graph_inputs: Sequence[str] = (),
    prepare: str | None = None,
    formats: Sequence[str] = ("safetensors",),
) -> str:
    """Return the README.md of a Hub folder: YAML front matter, then Markdown. The same arguments give the same text.

    `library` is timm, torchvision or transformers; `builder_arguments` are what its builder needs beyond the number of
    classes, and `usage` what is to be known of the model that it makes. `base_model` is the base's name on the Hub,
    `license` that of its weights. `recipe` is the resolved recipe as YAML; without one the weights were not retrained,
    or it is not known if there is no `base_source` either.
    `base_notes` say what was done to the base before it was grafted, such as a new head. `scores` holds `original`,
    what the best is `measured_against`, if there is any, and `best`, each {metric: value}; the first metric, better
    when higher or when lower, decides whether there is a gain. `no_original` says why there was no model to compare
    with before the run. They are of `evaluation`; `control` says what a comparison found against plain retraining.
    `proof` says of each law whether it holds, or how far. `replicas` says what the temporary modules were,
    `pipeline_tag` what the Hub calls the task, `formats` what was written. `graph_inputs` are the names of what a graph
    takes, and `prepare` is the class of transformers that makes these; without it they are images. What is None is
    named as missing; nothing else is claimed.
    """
    retrained, method = _retrained(recipe, known=base_source is not None)
    license = None if license == "unknown" else license
    original, best = (scores or {}).get("original", {}), (scores or {}).get("best", {})
    metrics = [metric for metric in best if metric in original]
    rows = [_score_row(original, best, metric) for metric in metrics]
    python = _usage(architecture, library, num_classes, builder_arguments or {}) + usage
    if set(formats) <= set(GRAPHS):
        python = _graph_usage("onnx" in formats, prepare, graph_inputs)
    base_model = on_hub(base_model)
    card = ModelCard.from_template(
        metadata(architecture, library, pipeline_tag, base_model, license, dict(best), evaluation),
        template_path=str(_TEMPLATE),
        title=f"{architecture}{retrained}",
        method=method,
        license_words=_plain(license) if license else None,
        notes=[_plain(note) for note in base_notes],
        identity=_identity_table(
            architecture, library, num_classes, base_source, base_model, base_content_hash, content_hash, replicas
        ),
        usage=_fenced("python", python),
        rows=rows,
        score_table=_table(("metric", measured_against.removeprefix("the "), "best", "change"), rows),
        no_original=no_original and f"{no_original[0].upper()}{no_original[1:]}.",
        best_table=_table(("metric", "best"), [(name, _number(score)) for name, score in best.items()]) if best else "",
        verdict=_verdict(original, best, metrics[0], higher_is_better) if metrics else None,
        evaluation=evaluation and {"name": _plain(evaluation.name), "split": _plain(evaluation.split)},
        control=control,
        laws=_proof(proof) if proof else None,
        recipe=_fenced("yaml", recipe) if recipe else None,
        package_version=package_version,
    )
    return f"{str(card).rstrip()}\n"


def _retrained(recipe: str | None, *, known: bool) -> tuple[str, str]:
    """Return how the weights were made: what follows the name in the title, and a sentence."""
    if recipe is None:
        return "", _NOT_RETRAINED if known else _FROM_A_FILE
    document = yaml.safe_load(recipe)
    kind = kind_named(document.get("trp", {}).get("kind", DEFAULT))
    method = f"Only values changed: it was retrained {kind.method}"
    noise = document.get("data", {}).get("label_noise", {})
    if rate := noise.get("rate"):
        method += f", on training labels made **wrong by design** ({noise['kind']}, rate {rate:g})"
    return f", retrained {kind.retrained}", method


def _identity_table(
    architecture: str,
    library: str,
    num_classes: int,
    base_source: str | None,
    base_model: str | None,
    base_content_hash: str | None,
    content_hash: str,
    replicas: str | None,
) -> str:
    rows = {
        "architecture": f"`{architecture}` ({library})",
        "classes": str(num_classes),
        "content hash": f"`{content_hash}`",
        "base": f"`{_plain(base_source)}`" if base_source else "not recorded",
        "base on the Hub": f"`{base_model}`" if base_model else "not known",
        "content hash of the base that was grafted": f"`{base_content_hash}`" if base_content_hash else "not recorded",
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


def _graph_usage(onnx: bool, prepare: str | None, names: Sequence[str]) -> str:
    if prepare is None:
        return _ONNX_USAGE if onnx else _PROGRAM_USAGE
    usage = _PREPARED_ONNX_USAGE if onnx else _PREPARED_PROGRAM_USAGE
    return usage.format(prepare=prepare, names=tuple(names))


def _score_row(original: Mapping[str, float], best: Mapping[str, float], metric: str) -> tuple[str, ...]:
    change = f"{_change(original, best, metric):+.{DECIMALS}f}"
    return metric, _number(original[metric]), _number(best[metric]), change


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


def _proof(proof: Mapping[str, bool | str]) -> str:
    words = {True: "holds", False: "**does not hold**"}
    rows = [(_LAWS.get(law, law), words[v] if isinstance(v, bool) else v) for law, v in proof.items()]
    return _table(("law", ""), rows)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _fenced(language: str, text: str) -> str:
    """Return a block of code; its fence is longer than any in the text, which could end it otherwise."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text.rstrip()}\n{fence}\n"


def _plain(text: str) -> str:
    """Return a name or a note from elsewhere without what Markdown, HTML or a table would make something else of."""
    return " ".join(text.translate(str.maketrans("`|<>[]", "'/()()")).split())
