"""torchvision: names, building, weights and their presets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode

from spgsurgeon.checkpoint import CONFIG
from spgsurgeon.errors import ArchitectureError, SurgeonError, did_you_mean, first_line
from spgsurgeon.models.libraries.identity import Converter, Identity
from spgsurgeon.models.preprocessing import Preprocessing, for_channels

_AUXILIARY_LOGITS = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
# What torchvision's factory adds with its own weights: they want images normalised another way, which the model does
# itself, and GoogLeNet's auxiliary heads in them were never trained.
_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False},
    "inception_v3": {"transform_input": True},
}
_EVALUATION = ("input_size", "mean", "std", "interpolation", "crop_pct")  # what a training script may have recorded
_CLASSES: dict[str, int] = {"classification": 1000, "segmentation": 21}  # ImageNet's, and VOC's with the background


class TorchvisionLibrary:
    """See `identity.Library`."""

    name = "torchvision"

    def architectures(self) -> list[str]:
        """Return the names of all image classifiers and segmentation models."""
        return sorted({*torchvision.models.list_models(module=torchvision.models), *_segmentation_models()})

    def task(self, architecture: str) -> str:
        """Return what the architecture is for, by the part of torchvision that it is in."""
        return "segmentation" if architecture in _segmentation_models() else "classification"

    def default_classes(self, architecture: str) -> int:
        """Return ImageNet's 1000, which all of torchvision's classifiers have; VOC's 21 for segmentation."""
        return _CLASSES[self.task(architecture)]

    def build(self, identity: Identity) -> nn.Module:
        """Return the module with random weights, its auxiliary head too where it can have one."""
        if identity.architecture not in self.architectures():
            raise ArchitectureError(
                f"torchvision {torchvision.__version__} has no model {identity.architecture!r} for images",
                hint=did_you_mean(identity.architecture, self.architectures()),
            )
        try:
            args = self._factory_args(identity)
            module: nn.Module = torchvision.models.get_model(
                identity.architecture, weights=None, num_classes=identity.num_classes, **args
            )
        except ArchitectureError:  # what is built may be limited
            raise
        except Exception as error:  # the arguments may come from a file, and trip whatever is in their way
            reason = first_line(error)
            raise ArchitectureError(f"torchvision can't build {identity.architecture}: {reason}") from error
        return module

    def _labels(self, weights: Any, architecture: str) -> dict[str, Any]:
        """Return the names that scores per class are given by; a classifier's weights go without."""
        names = {"label_names": list(weights.meta["categories"])}
        return names if self.task(architecture) == "segmentation" else {}

    def _factory_args(self, identity: Identity) -> dict[str, Any]:
        """Return the arguments of torchvision's factory, with what it would do of itself if they were left out."""
        name, args = identity.architecture, dict(identity.model_args)
        if name in _AUXILIARY_LOGITS:
            args.setdefault("init_weights", True)  # their default, said aloud: leaving it out is a FutureWarning
        if self.task(name) == "segmentation":
            if strange := args.keys() - {"aux_loss"}:
                raise TypeError(f"unexpected arguments {', '.join(sorted(strange))}")  # which it would just drop
            args["weights_backbone"] = None  # else it downloads those of the classifier
            for argument in _auxiliary_heads(name):
                args.setdefault(argument, True)  # as the published weights have it
        return args

    def builder_arguments(self, identity: Identity, outputs: int) -> dict[str, Any]:
        """Return the arguments of the model; of a segmentation model also those without which it would be another."""
        if self.task(identity.architecture) != "segmentation":
            return identity.model_args
        backbone = {"weights_backbone": None}  # left out, torchvision downloads those of the classifier
        return backbone | ({"aux_loss": True} if outputs > 1 else {}) | identity.model_args

    def pretrained(self, architecture: str, tag: str | None) -> tuple[nn.Module, Identity]:
        """Return the module with the weights of `tag`, loaded as tensors only and checked against their hash."""
        if architecture not in self.architectures():
            raise ArchitectureError(
                f"torchvision has no model {architecture!r} for images",
                hint=did_you_mean(f"torchvision/{architecture}", [f"torchvision/{a}" for a in self.architectures()]),
            )
        weights = _weights(architecture, tag)
        identity = Identity(
            library=self.name,
            architecture=architecture,
            num_classes=len(weights.meta["categories"]),
            model_args=_args_with_weights(weights, architecture),
            pretrained_cfg=_preset(weights) | {"tag": weights.name} | self._labels(weights, architecture),
        )
        try:
            state = torch.hub.load_state_dict_from_url(
                weights.url, map_location="cpu", check_hash=True, progress=False, weights_only=True
            )
        except (OSError, RuntimeError) as error:
            raise SurgeonError(
                f"the weights {weights} are not in the cache and could not be downloaded: {error}",
                hint="check the network, give a file, or use --random-weights where training starts from nothing",
            ) from error
        module = self.build(identity)
        if identity.model_args.get("aux_logits") is False:
            state = {key: state[key] for key in module.state_dict()}
        module.load_state_dict(state)
        return module, identity

    def hub_id(self, architecture: str, identity: Identity) -> None:
        """Return None: torchvision has its weights elsewhere."""

    def args_from_tensors(self, identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return the factory arguments that a checkpoint calls for.

        They are `aux_logits` and `aux_loss` where auxiliary heads are missing, and `image_size` by the positions of a
        vision transformer.
        """
        for argument, auxiliary in _auxiliary_heads(identity.architecture).items():
            if not any(key.startswith(auxiliary) for key in tensors):
                return {argument: False}
        positions, patches = tensors.get("encoder.pos_embedding"), tensors.get("conv_proj.weight")
        if positions is None or patches is None or positions.dim() != 3 or patches.dim() != 4 or not positions.shape[1]:
            return {}  # what does not fit is said when the weights are loaded
        return {"image_size": math.isqrt(positions.shape[1] - 1) * patches.shape[2]}  # one position is the class token

    def converters(self, architecture: str) -> tuple[Converter, ...]:
        """Return nothing: the library has none that are of use here."""
        return ()

    def preprocessing(self, identity: Identity, module: nn.Module, companions: Sequence[Path] = ()) -> Preprocessing:
        """Return the preset of the weights; for other weights that of the architecture's default ones."""
        preset = _description(identity)
        channels, size, _ = preset["input_size"]  # they are all square
        size = int(getattr(module, "image_size", size))  # a vision transformer takes no other
        return Preprocessing(
            input_size=(int(channels), size, size),
            mean=for_channels(preset["mean"], int(channels)),
            std=for_channels(preset["std"], int(channels)),
            interpolation=str(preset["interpolation"]),
            crop_pct=float(preset["crop_pct"]),
        )

    def config(self, identity: Identity, module: nn.Module, label_names: list[str] | None) -> dict[str, Any]:
        """Return our own document in the shape of timm's: torchvision has no format of its own for this."""
        preset = _description(identity)
        known_names = preset.pop("label_names", None)
        config = {
            "library": self.name,
            "architecture": identity.architecture,
            "num_classes": identity.num_classes,
            "model_args": identity.model_args,
            "pretrained_cfg": preset,
        }
        label_names = label_names or known_names
        return config | ({"label_names": label_names} if label_names else {})

    def identity_from_config(self, config: Mapping[str, Any]) -> Identity:
        """Return what `config` wrote."""
        architecture = str(config.get("architecture"))
        if architecture not in self.architectures():
            raise ArchitectureError(
                f"{CONFIG} names the architecture {architecture!r}, which torchvision "
                f"{torchvision.__version__} does not have",
                hint=did_you_mean(architecture, self.architectures()),
            )
        cfg = dict(config.get("pretrained_cfg") or {})
        if cfg and config.get("label_names"):
            cfg["label_names"] = config["label_names"]
        return Identity(
            library=self.name,
            architecture=architecture,
            num_classes=int(config.get("num_classes", self.default_classes(architecture))),
            model_args=dict(config.get("model_args") or {}),
            pretrained_cfg=cfg or None,
        )

    def identity_from_checkpoint(self, architecture: str, model_args: Mapping[str, Any]) -> Identity:
        """Return the architecture with the checkpoint's classes, the only argument that torchvision's models share.

        How the script prepared images for evaluation goes before what the weights that it began with want.
        """
        architecture, _, tag = architecture.partition(".")
        classes = model_args.get("num_classes") or self.default_classes(architecture)
        preset = _preset(_weights(architecture, tag)) | {"tag": tag} if tag else {}
        preset |= {key: model_args[key] for key in _EVALUATION if key in model_args}
        args = {"transform_input": True} if tag and architecture in _AUXILIARY_LOGITS else {}
        return Identity(self.name, architecture, int(classes), args, pretrained_cfg=preset or None)


@cache
def _segmentation_models() -> frozenset[str]:
    return frozenset(torchvision.models.list_models(module=torchvision.models.segmentation))


def _auxiliary_heads(architecture: str) -> dict[str, str]:
    """Return the factory argument that leaves out the auxiliary heads, with the start of a head's keys; often none."""
    if architecture in _AUXILIARY_LOGITS:
        return {"aux_logits": _AUXILIARY_LOGITS[architecture]}
    builder = torchvision.models.get_model_builder(architecture)
    has_one = "aux_loss" in signature(builder).parameters
    return {"aux_loss": "aux_classifier."} if has_one else {}


def _weights(architecture: str, tag: str | None) -> Any:
    available = torchvision.models.get_model_weights(architecture)
    name = tag or "DEFAULT"
    if name not in available.__members__:
        raise ArchitectureError(
            f"torchvision has no weights {name!r} for {architecture}; it has {', '.join(w.name for w in available)}"
        )
    return available[name]


def _args_with_weights(weights: Any, architecture: str) -> dict[str, Any]:
    """Return what torchvision's factory builds a model with where it comes with `weights`."""
    if architecture.startswith("vit_"):
        return {"image_size": int(weights.meta["min_size"][0])}
    return dict(_WITH_WEIGHTS.get(architecture, {}))


def _description(identity: Identity) -> dict[str, Any]:
    """Return what is known of the weights; what nobody said is as the architecture's default ones have it."""
    return _preset(_weights(identity.architecture, None)) | (identity.pretrained_cfg or {})


def _preset(weights: Any) -> dict[str, Any]:
    """Return the preset in timm's words; that of segmentation resizes the shorter edge, and crops nothing."""
    preset = weights.transforms()
    resize = preset.resize_size[0]
    crop = getattr(preset, "crop_size", preset.resize_size)[0]
    interpolation = preset.interpolation
    return {
        "input_size": [3, crop, crop],
        "mean": list(preset.mean),
        "std": list(preset.std),
        "interpolation": interpolation.value if isinstance(interpolation, InterpolationMode) else str(interpolation),
        "crop_pct": crop / resize,
    }
