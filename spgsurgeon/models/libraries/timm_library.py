"""timm: names, building, preprocessing and the Hub's config.json."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import timm
import torch
from timm.data.config import resolve_model_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg, load_model_config_from_hf, model_entrypoint
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import ArchitectureError, SurgeonError, did_you_mean, first_line
from spgsurgeon.models.libraries.arguments import checked_arguments, checked_description
from spgsurgeon.models.libraries.identity import Converter, Identity
from spgsurgeon.models.preprocessing import Preprocessing, for_channels

_HUB = "hf-hub:"
_FILTERS = ("checkpoint_filter_fn", "_filter_fn", "pretrained_filter_fn", "checkpoint_filter_fn_classifier")
# Of train.py, named as in timm's pretrained_cfg.
_DATA_ARGUMENTS = ("mean", "std", "interpolation", "crop_pct", "crop_mode")
_OF_THE_WEIGHTS = ("tag", "license", "description", "origin_url", "paper_name", "paper_ids", "notes")
"""What timm says of certain weights: not true of others of the same architecture, however alike in all else."""


class TimmLibrary:
    """See `identity.Library`."""

    name = "timm"

    def architectures(self) -> list[str]:
        """Return the names of all architectures, without weights tags."""
        return sorted(timm.list_models())

    def task(self, architecture: str) -> str:
        """Return `classification`: that is what timm's models are for."""
        return "classification"

    def default_classes(self, architecture: str) -> int:
        """Return the number of classes of the architecture's default weights."""
        cfg = get_pretrained_cfg(architecture)
        return 1000 if cfg is None else int(cfg.num_classes)

    def build(self, identity: Identity) -> nn.Module:
        """Return the module with random weights; nothing is read or fetched for it."""
        _check_name(identity.architecture)
        known = {f.name for f in dataclasses.fields(PretrainedCfg)}
        cfg = {k: v for k, v in (identity.pretrained_cfg or {}).items() if k in known}
        try:
            module = timm.create_model(
                identity.architecture,
                pretrained=False,
                pretrained_cfg=cfg or None,
                num_classes=identity.num_classes,
                **identity.model_args,
            )
        except ArchitectureError:  # what is built may be limited
            raise
        except Exception as error:  # the arguments may come from a file, and trip whatever is in their way
            reason = first_line(error)
            raise ArchitectureError(f"timm can't build {identity.architecture}: {reason}") from error
        return module

    def pretrained(self, architecture: str, tag: str | None) -> tuple[nn.Module, Identity]:
        """Return the module with the weights of `tag`; `architecture` may be a `hf-hub:` name."""
        name = f"{architecture}.{tag}" if tag else architecture
        try:
            architecture, args = _from_the_hub(architecture) if architecture.startswith(_HUB) else (name, {})
            module = timm.create_model(architecture, pretrained=True, **args)
        except (OSError, RuntimeError, ValueError) as error:
            raise _explain_missing_weights(name, error) from error
        cfg: dict[str, Any] = dict(cast(Any, module).pretrained_cfg)
        return module, Identity(
            library=self.name,
            architecture=str(cfg.get("architecture") or architecture),
            num_classes=int(cast(Any, module).num_classes),
            model_args=_without_classes(getattr(module, "_model_args", {})),
            pretrained_cfg=cfg,
        )

    def hub_id(self, architecture: str, identity: Identity) -> str | None:
        """Return the name of a `hf-hub:` repository without its revision, or the one that timm fetches a tag from."""
        if architecture.startswith(_HUB):
            return architecture.removeprefix(_HUB).partition("@")[0]
        tag = (identity.pretrained_cfg or {}).get("tag")
        cfg = get_pretrained_cfg(f"{identity.architecture}.{tag}") if tag else None
        return cfg.hf_hub_id if cfg else None

    def args_from_tensors(self, identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return `in_chans` and `img_size` where the first convolution or the positions call for others than usual."""
        cfg = identity.pretrained_cfg or _default_cfg(identity.architecture)
        first_conv = cfg.get("first_conv")
        weight = tensors.get(f"{first_conv}.weight") if isinstance(first_conv, str) else None
        if weight is None or weight.dim() != 4:
            return {}
        args = {} if "img_size" in identity.model_args else self._image_size(identity, tensors, weight.shape[2])
        if weight.shape[1] != cfg.get("input_size", (3,))[0]:
            args["in_chans"] = int(weight.shape[1])
        return args

    def _image_size(self, identity: Identity, tensors: Mapping[str, Tensor], patch: int) -> dict[str, Any]:
        """Return the `img_size` in pixels that gives a vision transformer as many positions as the checkpoint has."""
        positions = tensors.get("pos_embed")
        if positions is None or positions.dim() != 3:
            return {}
        with torch.device("meta"):
            usual = self.build(identity)
        own, grid = getattr(usual, "pos_embed", None), getattr(getattr(usual, "patch_embed", None), "grid_size", None)
        if own is None or grid is None or own.shape == positions.shape:
            return {}
        patches = positions.shape[1] - (own.shape[1] - math.prod(grid))  # the others are those of class tokens
        side = math.isqrt(max(patches, 0))
        if side * side != patches:
            raise ArchitectureError(
                f"the weights have {patches} positions of {patch} x {patch} pixels, which make no square image",
                hint="--image-size HxW gives the height and width in pixels",
                code="image-size-unknown",
            )
        return {"img_size": side * patch} if side else {}

    def converters(self, architecture: str) -> list[Converter]:
        """Return timm's filters for the checkpoints of others, of the module that has the architecture."""
        module = sys.modules[model_entrypoint(architecture).__module__]
        named: list[Any] = [getattr(module, name, None) for name in _FILTERS]
        found = [convert for convert in named if callable(convert)]
        scaled = [convert for convert in found if "adapt_layer_scale" in inspect.signature(convert).parameters]
        return [*found, *(partial(convert, adapt_layer_scale=True) for convert in scaled)]  # as for DeiT III

    def preprocessing(self, identity: Identity, module: nn.Module, companions: Sequence[Path] = ()) -> Preprocessing:
        """Return timm's own resolution of the data configuration, for the channels and size the model was built for."""
        data = resolve_model_data_config(module)
        channels, *size = data["input_size"]
        channels = int(identity.model_args.get("in_chans", channels))
        height, width = _height_and_width(identity.model_args.get("img_size") or size)
        tested = resolve_model_data_config(module, use_test_size="img_size" not in identity.model_args)
        test_size = (channels, *_height_and_width(tested["input_size"][1:]))
        return Preprocessing(
            input_size=(channels, height, width),
            mean=for_channels(data["mean"], channels),
            std=for_channels(data["std"], channels),
            interpolation=data["interpolation"],
            crop_pct=float(data["crop_pct"]),
            crop_mode=data["crop_mode"],
            test_input_size=None if tested["input_size"] == data["input_size"] else test_size,
            test_crop_pct=None if tested["crop_pct"] == data["crop_pct"] else float(tested["crop_pct"]),
        )

    def config(self, identity: Identity, module: nn.Module, label_names: list[str] | None) -> dict[str, Any]:
        """Return what timm itself writes for the Hub, so that it and transformers read the folder (`local-dir:`).

        Where the weights are from, and under which license, is said only if the identity says so: timm fills in what
        is true of its default weights.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / CONFIG
            extra = {"label_names": label_names} if label_names else None
            save: Any = save_config_for_hf  # annotated as taking a str, but timm 1.0.22 opens it as a Path
            save(module, path, model_config=extra, model_args=identity.model_args)
            config: dict[str, Any] = json.loads(path.read_text())
        config["architecture"] = identity.architecture  # timm's vitamin_xlarge_336 calls itself the one for 256 pixels
        # It stands beside them already, and transformers passes both to timm's factory, which takes one.
        config["model_args"] = _without_classes(config.get("model_args") or {})
        said, cfg = identity.pretrained_cfg or {}, config["pretrained_cfg"]
        size = list(self.preprocessing(identity, module).input_size)
        if "img_size" in identity.model_args and size != cfg["input_size"]:  # the images of the weights don't fit then
            cfg["input_size"] = size
            cfg.pop("test_input_size", None)
        config["pretrained_cfg"] = {k: v for k, v in cfg.items() if k not in _OF_THE_WEIGHTS or k in said}
        return config

    def builder_arguments(self, identity: Identity, outputs: int) -> dict[str, Any]:
        """Return the arguments of the model."""
        return identity.model_args

    def identity_from_config(self, config: Mapping[str, Any]) -> Identity:
        """Return what a Hub config.json says."""
        cfg = dict(config.get("pretrained_cfg") or {})
        architecture = str(config.get("architecture") or cfg.get("architecture"))
        _check_name(architecture)
        if config.get("label_names"):
            cfg["label_names"] = config["label_names"]
        num_classes = config.get("num_classes", cfg.get("num_classes"))
        return Identity(
            library=self.name,
            architecture=architecture,
            num_classes=self.default_classes(architecture) if num_classes is None else int(num_classes),
            model_args=_without_classes(config.get("model_args") or {}),
            pretrained_cfg=cfg or None,
        )

    def identity_from_checkpoint(self, architecture: str, model_args: Mapping[str, Any]) -> Identity:
        """Return what timm's train.py built, from its own arguments; images keep the size they had in training.

        An image size shapes the module only where the architecture's input size is fixed, as train.py has it. Whose
        weights they are is known only if `architecture` has a tag.
        """
        architecture, _, tag = architecture.partition(".")
        explicit = dict(model_args.get("model_kwargs") or {})
        explicit_classes = explicit.pop("num_classes", None)
        cfg = _default_cfg(f"{architecture}.{tag}" if tag else architecture)
        if not tag:
            cfg = {key: value for key, value in cfg.items() if key not in _OF_THE_WEIGHTS}
        channels, size = _training_input(model_args, explicit)
        says = {"in_chans": channels, "global_pool": model_args.get("global_pool")}
        if size is not None and cfg.get("fixed_input_size"):
            says["img_size"] = list(size)
        default_channels, *default_size = cfg.get("input_size", (3, 224, 224))
        if channels or size:
            cfg["input_size"] = [channels or default_channels, *(size or default_size)]
            cfg.pop("test_input_size", None)
        cfg |= {key: model_args[key] for key in _DATA_ARGUMENTS if model_args.get(key) is not None}
        classes = model_args.get("num_classes") or explicit_classes or self.default_classes(architecture)
        return Identity(
            library=self.name,
            architecture=architecture,
            num_classes=int(classes),
            model_args={key: value for key, value in says.items() if value is not None} | explicit,
            pretrained_cfg=cfg or None,
        )


def _training_input(args: Mapping[str, Any], explicit: Mapping[str, Any]) -> tuple[int | None, tuple[int, int] | None]:
    """Return the channels and (height, width) that train.py was told; its `input_size` goes before `img_size`."""
    channels = explicit.get("in_chans") or args.get("in_chans")
    size = args.get("img_size") or explicit.get("img_size")
    if args.get("input_size"):
        first, *size = args["input_size"]
        channels = channels or first
    if size is None:
        return channels, None
    return channels, _height_and_width(size)


def _height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _default_cfg(architecture: str) -> dict[str, Any]:
    try:
        cfg = get_pretrained_cfg(architecture)
    except RuntimeError as error:  # an unknown tag
        raise _explain_missing_weights(architecture, error) from error
    return {} if cfg is None else dict(cfg.to_dict())


def _check_name(architecture: str) -> None:
    """Raise ArchitectureError for what is not the bare name of a model: timm takes sources (`local-dir:`) as well."""
    if architecture not in timm.list_models():
        raise ArchitectureError(
            f"timm {timm.__version__} has no architecture {architecture!r}",
            hint=did_you_mean(architecture, timm.list_models()),
        )


def _from_the_hub(name: str) -> tuple[str, dict[str, Any]]:
    """Return the architecture and the arguments of timm's factory for the weights of a `hf-hub:` name.

    The repository's `config.json` is a stranger's file like any other: of where the weights are it has no say.
    """
    repository = name.removeprefix(_HUB)
    cfg, architecture, args = load_model_config_from_hf(repository)
    _check_name(architecture)
    place = f"the {CONFIG} of {name}"
    cfg = checked_description(cfg, place) | {"hf_hub_id": repository, "source": "hf-hub"}
    return architecture, checked_arguments("timm", args, f"{place}: model_args") | {"pretrained_cfg": cfg}


def _without_classes(args: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in args.items() if k != "num_classes"}


def _explain_missing_weights(name: str, error: Exception) -> SurgeonError:
    if "Unknown model" in str(error):
        architecture = name.partition(".")[0]
        known = [f"timm/{model}" for model in timm.list_models()]
        return ArchitectureError(f"timm has no model {name!r}", hint=did_you_mean(f"timm/{architecture}", known))
    if "Invalid pretrained tag" in str(error):
        tags = timm.list_pretrained(name.partition(".")[0] + ".*")
        return ArchitectureError(f"timm has no weights {name!r}; it has {', '.join(tags) or 'none for this model'}")
    if isinstance(error, OSError):
        return SurgeonError(
            f"the weights of timm/{name} are not in the cache and could not be downloaded: {first_line(error)}",
            hint="check the network (HF_HUB_OFFLINE=1 asks the cache only, without retrying), give a file, or use "
            "--random-weights where training starts from nothing",
        )
    return SurgeonError(f"timm could not load the weights of {name}: {first_line(error)}")
