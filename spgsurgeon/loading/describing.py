"""The config.json of a file that stands alone: that which lies beside it, or the one that it carries. Read as data."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import CONFIG, Outline, read_json_object
from spgsurgeon.models import LIBRARIES, catalogue, is_transformers_config, refuse_adapter

SHARD = re.compile(r"-\d{5}-of-\d{5}\.")
_BESIDE_THE_DESCRIPTION = ("architecture", "library", "model_args", "num_features", "labels")  # in a flat config.json


@dataclass(frozen=True)
class Description:
    """What says what a file is: a config.json, the folder that it lies in (None: it is in the file), and a note."""

    config: dict[str, Any] | None = None
    folder: Path | None = None
    notes: tuple[str, ...] = ()


def description_of(outline: Outline) -> Description:
    """Return what says what the weights of a file are.

    A shard is a part of a model, and a training checkpoint says itself what it is: what lies beside them is not read.
    """
    path = outline.path
    if SHARD.search(path.name) or outline.architecture is not None:
        return Description()
    beside = path.parent / CONFIG
    found = _model_in(read_json_object(beside)) if beside.is_file() else None
    if outline.description is not None and (found is None or named_in(found) != named_in(outline.description)):
        return Description(
            outline.description, notes=(f"the file says itself what it is: {named_in(outline.description)}",)
        )
    if found is None:
        return Description()
    refuse_adapter({file.name for file in path.parent.iterdir()}, str(path.parent))
    return Description(found, path.parent, (f"the {CONFIG} beside it says what it is: {named_in(found)}",))


def passed_over(outline: Outline) -> list[str]:
    """Return the note on a config.json that --arch went before."""
    there = outline.description is not None or (outline.path.parent / CONFIG).is_file()
    return [f"its {CONFIG} was not read, as --arch says what it is"] if there else []


def hub_config(config: dict[str, Any]) -> dict[str, Any]:
    """Return a Hub folder's config.json; timm before 0.8 wrote what describes the weights beside the architecture."""
    if "architecture" not in config or "pretrained_cfg" in config or config.get("library", "timm") != "timm":
        return config
    names = {"label_names": config["labels"]} if config.get("labels") and not config.get("label_names") else {}
    said = {key: value for key, value in config.items() if key not in _BESIDE_THE_DESCRIPTION}
    return config | names | {"pretrained_cfg": said | names}


def named_in(config: Mapping[str, Any]) -> str:
    """Return what a config.json says that the model is, as text."""
    if is_transformers_config(config):
        listed = config.get("architectures")
        return f"transformers/{listed[0] if isinstance(listed, list) and listed else config['model_type']!s:.80}"
    cfg = config.get("pretrained_cfg")
    architecture = config.get("architecture") or (cfg.get("architecture") if isinstance(cfg, Mapping) else None)
    return f"{config.get('library', 'timm')!s:.20}/{architecture!s:.80}"


def _model_in(config: dict[str, Any]) -> dict[str, Any] | None:
    """Return a config.json as the Hub has it; None if it is not a model's, as that of a training script."""
    described = is_transformers_config(config) or isinstance(config.get("pretrained_cfg"), Mapping)
    known = config.get("library", "timm") in LIBRARIES and named_in(config) in catalogue().entries
    return hub_config(config) if described or known else None
