"""Where the weights are in a checkpoint, who wrote it, and what it says about the model: a table of known layouts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from spgsurgeon.checkpoint.pickle.nodes import describe_key
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec

_RAW_KEYS = ("state_dict", "model", "model_state_dict")
_EMA_KEYS = ("state_dict_ema", "model_ema")
_MOST_SETTINGS = 50  # entries of a list or dictionary
_LONGEST_NAME = 200
_MOST_KEYWORDS = 200
NO_SETTING = "(not a setting)"  # the value of an argument that is more than a setting
COUNTERS = ("n_averaged", "num_updates")  # of torch's AveragedModel and its kin, beside the weights
# Anybody's script may keep a `model` or an `arch` and its `args`, of timm's networks or torchvision's. Which library
# they are of is known only by what that library's own scripts write and others don't: timm's a version, torchvision's
# these arguments.
_TORCHVISION_MARKS = {"test_only", "print_freq", "output_dir"}  # of references/classification and segmentation

_LIGHTNING_NAMES = ("architecture", "arch", "model_name", "backbone")

# Arguments of timm's train.py that shape the model and its images, under the names of timm.create_model and of its
# pretrained_cfg.
_TIMM_ARGUMENTS = {
    "num_classes": "num_classes",
    "in_chans": "in_chans",
    "img_size": "img_size",
    "input_size": "input_size",
    "gp": "global_pool",
    "model_kwargs": "model_kwargs",
    "mean": "mean",
    "std": "std",
    "interpolation": "interpolation",
    "crop_pct": "crop_pct",
    "crop_mode": "crop_mode",
}
_IMAGENET: dict[str, Any] = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

SpecOf = Callable[[str, object], TensorSpec | None]


@dataclass(frozen=True)
class Layout:
    """Where raw and EMA weights lie in a loaded document (() is the document itself), and what it says of itself."""

    producer: str | None = None
    library: str | None = None
    architecture: str | None = None
    model_args: dict[str, Any] = field(default_factory=dict)
    raw: tuple[str, ...] | None = None
    ema: tuple[str, ...] | None = None
    description: dict[str, Any] | None = None
    """The config.json that the file carries."""


def layout_of(document: Mapping[Any, Any]) -> Layout:
    """Return the layout of what torch.save stored; without known sections, raw is ()."""
    raw, ema = _first_section(document, _RAW_KEYS), _first_section(document, _EMA_KEYS)
    args = _fields(document.get("args"))
    if raw is None and ema is None:
        return Layout(architecture=text(args.get("model")) or text(document.get("arch")), raw=())
    if "pytorch-lightning_version" in document:
        return _lightning(document, raw)
    architecture = text(args.get("model")) or text(document.get("arch"))
    if "arch" in document and type(document.get("version")) is int:
        said = {ours: _said(args.get(theirs)) for theirs, ours in _TIMM_ARGUMENTS.items()}
        said["model_kwargs"] = _keywords(args.get("model_kwargs"))
        model_args = {name: value for name, value in said.items() if value is not None}
        return Layout("timm", "timm", architecture, model_args, raw, ema)
    if raw == ("model",) and "model" in args and args.keys() >= _TORCHVISION_MARKS:
        return Layout("torchvision", "torchvision", architecture, _torchvision_evaluation(args), raw, ema)
    return Layout(architecture=architecture, raw=raw, ema=ema)


def _torchvision_evaluation(args: Mapping[Any, Any]) -> dict[str, Any]:
    """Return how torchvision's references/classification/train.py evaluated, under timm's names.

    The script takes ImageNet's mean and deviation for every model. Its earlier versions recorded no sizes.
    """
    crop, resize, interpolation = (args.get(key) for key in ("val_crop_size", "val_resize_size", "interpolation"))
    if not (isinstance(crop, int) and isinstance(resize, int) and min(crop, resize) > 0):
        return {}
    share = crop / resize
    while math.floor(crop / share) < resize:  # evaluation rounds down, as timm does
        share = math.nextafter(share, 0)
    said = {"interpolation": interpolation} if text(interpolation) else {}
    return {"input_size": [3, crop, crop], "crop_pct": share, **_IMAGENET, **said}


def _lightning(document: Mapping[Any, Any], raw: tuple[str, ...] | None) -> Layout:
    settings = _fields(document.get("hyper_parameters"))
    architecture = next(filter(None, (text(settings.get(key)) for key in _LIGHTNING_NAMES)), None)
    classes = settings.get("num_classes")
    model_args = {"num_classes": classes} if type(classes) is int and classes > 0 else {}
    ema = None
    if _first_section(document, ("current_model_state",)):  # the WeightAveraging callback swaps the two
        raw, ema = ("current_model_state",), raw
    return Layout("lightning", None, architecture, model_args, raw, ema)


def specs_at(document: Any, place: tuple[str, ...], spec_of: SpecOf) -> dict[str, TensorSpec]:
    """Return the tensors of the state dict at `place`, counters left out; refuses a state dict with anything else.

    `spec_of` says of a key and a value where that tensor lies, or None if it is not a tensor.
    """
    for key in place:
        document = document[key]
    entries = {key: value for key, value in document.items() if key not in COUNTERS}
    found = {key: spec for key, value in entries.items() if isinstance(key, str) and (spec := spec_of(key, value))}
    strangers = [describe_key(key) for key in entries if key not in found]
    where, shown = f" in {'.'.join(place)!r}" if place else "", ", ".join(strangers[:8])
    if not found:
        raise UnreadableError(
            f"holds no weights{where}; it has: {shown or 'nothing'}", hint="give a file with a model's state dict in it"
        )
    if strangers:
        verb = "is not a tensor" if len(strangers) == 1 else "are not tensors"
        raise MalformedError(
            f"its state dict{where} holds more than tensors: {shown} {verb}",
            hint="save model.state_dict() alone",
        )
    return found


def _first_section(document: Mapping[Any, Any], keys: tuple[str, ...]) -> tuple[str, ...] | None:
    return next(((key,) for key in keys if isinstance(document.get(key), Mapping) and document[key]), None)


def _fields(value: Any) -> Mapping[Any, Any]:
    """Return the entries of a dict, or the attributes of an argparse Namespace, which is read as one."""
    return value if isinstance(value, Mapping) else {}


def text(value: Any) -> str | None:
    """Return the value if it is a name as people give them: printable, and not endless."""
    return value if isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and value.isprintable() else None


def _said(value: Any) -> Any:
    """Return a setting as JSON has it, tuples as lists; None if it is empty or anything else than settings are."""
    try:
        return _plain(value) or None
    except ValueError:
        return None


def _keywords(value: Any) -> Any:
    """Return arguments by their names: what is more than a setting keeps its name, so that it is not overlooked."""
    if not isinstance(value, Mapping):
        return _said(value)
    return {str(key)[:_LONGEST_NAME]: _setting(entry) for key, entry in islice(value.items(), _MOST_KEYWORDS)} or None


def _setting(value: Any) -> Any:
    try:
        return _plain(value)
    except ValueError:
        return NO_SETTING


def _plain(value: Any, depth: int = 3) -> Any:
    if value is None or isinstance(value, (str, int)) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if not isinstance(value, (list, tuple, dict)) or depth == 0 or len(value) > _MOST_SETTINGS:
        raise ValueError
    if not isinstance(value, dict):
        return [_plain(entry, depth - 1) for entry in value]
    if not all(isinstance(key, str) for key in value):
        raise ValueError
    return {key: _plain(entry, depth - 1) for key, entry in value.items()}
