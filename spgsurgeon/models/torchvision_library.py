"""torchvision: names, building, weights and their presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode

from spgsurgeon.errors import ArchitectureError, SurgeonError, did_you_mean
from spgsurgeon.models.identity import Identity
from spgsurgeon.models.preprocessing import Preprocessing

_AUXILIARY_HEADS = {"googlenet": "aux1.", "inception_v3": "AuxLogits."}
# What torchvision's factory adds with its own weights: they want pictures normalised another way, which the model does
# itself, and GoogLeNet's auxiliary heads in them were never trained.
_WITH_WEIGHTS: dict[str, dict[str, Any]] = {
    "googlenet": {"transform_input": True, "aux_logits": False},
    "inception_v3": {"transform_input": True},
}


class TorchvisionLibrary:
    """See `identity.Library`."""

    name = "torchvision"

    def architectures(self) -> list[str]:
        """Return the names of all image classifiers."""
        return sorted(torchvision.models.list_models(module=torchvision.models))

    def default_classes(self, architecture: str) -> int:
        """Return ImageNet's 1000, which all of torchvision's classifiers have."""
        return 1000

    def build(self, identity: Identity) -> nn.Module:
        """Return the module with random weights."""
        if identity.architecture not in self.architectures():
            raise ArchitectureError(
                f"torchvision {torchvision.__version__} has no classifier {identity.architecture!r}",
                hint=did_you_mean(identity.architecture, self.architectures()),
            )
        args = dict(identity.model_args)
        if identity.architecture in _AUXILIARY_HEADS:
            args.setdefault("init_weights", True)  # their default, said aloud: leaving it out is a FutureWarning
        try:
            module: nn.Module = torchvision.models.get_model(
                identity.architecture, weights=None, num_classes=identity.num_classes, **args
            )
        except Exception as error:  # the arguments may come from a file, and trip whatever is in their way
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise ArchitectureError(f"torchvision can't build {identity.architecture}: {reason}") from error
        return module

    def pretrained(self, architecture: str, tag: str | None) -> tuple[nn.Module, Identity]:
        """Return the module with the weights of `tag`, loaded as tensors only and checked against their hash."""
        if architecture not in self.architectures():
            raise ArchitectureError(
                f"torchvision has no classifier {architecture!r}",
                hint=did_you_mean(f"torchvision/{architecture}", [f"torchvision/{a}" for a in self.architectures()]),
            )
        weights = _weights(architecture, tag)
        identity = Identity(
            library=self.name,
            architecture=architecture,
            num_classes=len(weights.meta["categories"]),
            model_args=_args_with_weights(weights, architecture),
            pretrained_cfg=_preset(weights) | {"tag": weights.name},
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

    def args_from_tensors(self, identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return `aux_logits` where the auxiliary heads are missing, `image_size` by the positions of a transformer."""
        auxiliary = _AUXILIARY_HEADS.get(identity.architecture)
        if auxiliary is not None and not any(key.startswith(auxiliary) for key in tensors):
            return {"aux_logits": False}
        positions, patches = tensors.get("encoder.pos_embedding"), tensors.get("conv_proj.weight")
        if positions is None or patches is None:
            return {}
        return {"image_size": math.isqrt(positions.shape[1] - 1) * patches.shape[2]}  # one position is the class token

    def preprocessing(self, identity: Identity, module: nn.Module) -> Preprocessing:
        """Return the preset of the weights; for other weights that of the architecture's default ones."""
        preset = identity.pretrained_cfg or _preset(_weights(identity.architecture, None))
        channels, size, _ = preset["input_size"]  # they are all square
        size = int(getattr(module, "image_size", size))  # a vision transformer takes no other
        return Preprocessing(
            input_size=(int(channels), size, size),
            mean=tuple(preset["mean"]),
            std=tuple(preset["std"]),
            interpolation=str(preset["interpolation"]),
            crop_pct=float(preset["crop_pct"]),
        )

    def config(self, identity: Identity, module: nn.Module, label_names: list[str] | None) -> dict[str, Any]:
        """Return our own document in the shape of timm's: torchvision has no format of its own for this."""
        preset = identity.pretrained_cfg or _preset(_weights(identity.architecture, None))
        config = {
            "library": self.name,
            "architecture": identity.architecture,
            "num_classes": identity.num_classes,
            "model_args": identity.model_args,
            "pretrained_cfg": preset,
        }
        return config | ({"label_names": label_names} if label_names else {})

    def identity_from_config(self, config: Mapping[str, Any]) -> Identity:
        """Return what `config` wrote."""
        architecture = str(config.get("architecture"))
        if architecture not in self.architectures():
            raise ArchitectureError(
                f"config.json names the architecture {architecture!r}, which torchvision "
                f"{torchvision.__version__} does not have",
                hint=did_you_mean(architecture, self.architectures()),
            )
        cfg = config.get("pretrained_cfg")
        return Identity(
            library=self.name,
            architecture=architecture,
            num_classes=int(config.get("num_classes", 1000)),
            model_args=dict(config.get("model_args") or {}),
            pretrained_cfg=dict(cfg) if cfg else None,
        )

    def identity_from_checkpoint(self, architecture: str, model_args: Mapping[str, Any]) -> Identity:
        """Return the architecture with the checkpoint's classes, the only argument torchvision's classifiers share."""
        architecture, _, tag = architecture.partition(".")
        classes = model_args.get("num_classes") or self.default_classes(architecture)
        preset = _preset(_weights(architecture, tag)) | {"tag": tag} if tag else None
        args = {"transform_input": True} if tag and architecture in _AUXILIARY_HEADS else {}
        return Identity(self.name, architecture, int(classes), args, pretrained_cfg=preset)


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


def _preset(weights: Any) -> dict[str, Any]:
    preset = weights.transforms()
    crop, resize = preset.crop_size[0], preset.resize_size[0]
    interpolation = preset.interpolation
    return {
        "input_size": [3, crop, crop],
        "mean": list(preset.mean),
        "std": list(preset.std),
        "interpolation": interpolation.value if isinstance(interpolation, InterpolationMode) else str(interpolation),
        "crop_pct": crop / resize,
    }
