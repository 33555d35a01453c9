"""Where the weights are in a checkpoint, who wrote it, and what it says about the model: a table of known layouts."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from spgsurgeon.errors import DamagedFileError, UsageError

_RAW_KEYS = ("state_dict", "model", "model_state_dict")
_EMA_KEYS = ("state_dict_ema", "model_ema")
_COUNTERS = ("n_averaged", "num_updates")  # of torch's AveragedModel and its kin, beside the weights
_DEIT_MARKS = ("drop_path", "nb_classes")  # DeiT and its descendants copy torchvision's layout but train timm's models

# Arguments of timm's train.py that shape the model, under the names of timm.create_model.
_TIMM_ARGUMENTS = {
    "num_classes": "num_classes",
    "in_chans": "in_chans",
    "img_size": "img_size",
    "input_size": "input_size",
    "gp": "global_pool",
    "model_kwargs": "model_kwargs",
}


@dataclass(frozen=True)
class Layout:
    """Where raw and EMA weights lie in a loaded document (() is the document itself), and what it says of itself."""

    producer: str | None = None
    library: str | None = None
    architecture: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    raw: tuple[str, ...] | None = None
    ema: tuple[str, ...] | None = None


def layout_of(document: Mapping[Any, Any]) -> Layout:
    """Return the layout of what torch.save stored; a mapping without known sections counts as bare state dict."""
    raw, ema = _first_section(document, _RAW_KEYS), _first_section(document, _EMA_KEYS)
    args = _fields(document.get("args"))
    if raw is None and ema is None:
        return Layout(raw=())
    if "pytorch-lightning_version" in document:
        return _lightning(document, raw)
    architecture = _text(args.get("model")) or _text(document.get("arch"))
    if "arch" in document and ("version" in document or args):
        model_args = {
            ours: args[theirs] for theirs, ours in _TIMM_ARGUMENTS.items() if _says_something(args.get(theirs))
        }
        return Layout("timm", "timm", architecture, model_args, raw, ema)
    if raw == ("model",) and "model" in args and not any(mark in args for mark in _DEIT_MARKS):
        return Layout("torchvision", "torchvision", architecture, {}, raw, ema)
    return Layout(architecture=architecture, raw=raw, ema=ema)


def _lightning(document: Mapping[Any, Any], raw: tuple[str, ...] | None) -> Layout:
    settings = _fields(document.get("hyper_parameters"))
    named = (_text(settings.get(key)) for key in ("architecture", "arch", "model_name"))
    ema = None
    if _first_section(document, ("current_model_state",)):  # the WeightAveraging callback swaps the two
        raw, ema = ("current_model_state",), raw
    return Layout("lightning", None, next(filter(None, named), None), {}, raw, ema)


def choose_weights(path: Path, layout: Layout, weights: str | None) -> tuple[str, tuple[str, ...]]:
    """Return ("raw" or "ema", where they lie); None asks for the EMA where there is one."""
    if weights not in (None, "raw", "ema"):
        raise UsageError(f"weights can't be {weights!r}", hint="ask for ema or raw")
    places = {"ema": layout.ema, "raw": layout.raw}
    chosen = weights or ("ema" if layout.ema is not None else "raw")
    place = places[chosen]
    if place is None:
        other = "raw" if chosen == "ema" else "ema"
        raise UsageError(f"{path} has no {chosen} weights, only {other}", hint=f"--weights {other} reads those")
    return chosen, place


def tensors_at(path: Path, document: Any, place: tuple[str, ...]) -> dict[str, Tensor]:
    """Return the tensors of the state dict at `place`, counters left out; refuses a state dict with anything else."""
    for key in place:
        document = document[key]
    entries = {key: value for key, value in document.items() if key not in _COUNTERS}
    tensors = {key: value for key, value in entries.items() if isinstance(key, str) and isinstance(value, Tensor)}
    strangers = [f"{key!r:.80}" for key in entries if key not in tensors]
    where = "".join(f"[{key!r}]" for key in place)
    if not tensors:
        found = ", ".join(strangers[:8]) or "nothing"
        raise UsageError(
            f"{path}{where} holds no weights; it has: {found}", hint="give a file with a model's state dict in it"
        )
    if strangers:
        raise DamagedFileError(
            f"{path}{where} is no clean state dict: {', '.join(strangers[:8])} "
            f"{'is' if len(strangers) == 1 else 'are'} not a tensor",
            hint="save model.state_dict() alone",
        )
    return tensors


def _first_section(document: Mapping[Any, Any], keys: tuple[str, ...]) -> tuple[str, ...] | None:
    return next(((key,) for key in keys if isinstance(document.get(key), Mapping) and document[key]), None)


def _fields(value: Any) -> dict[str, Any]:
    """Return the entries of a dict, or the attributes of an argparse Namespace."""
    if isinstance(value, argparse.Namespace):
        return vars(value)
    return dict(value) if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _says_something(value: Any) -> bool:
    """Whether the value is set and would survive JSON."""
    try:
        json.dumps(value)
    except (TypeError, ValueError, RecursionError):
        return False
    return value not in (None, "", [], {})
