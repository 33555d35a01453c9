"""timm: names, building, preprocessing and the Hub's config.json."""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import timm
from timm.data.config import resolve_model_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg
from timm.models._hub import save_config_for_hf
from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError, SurgeonError, did_you_mean
from spgsurgeon.models.identity import Identity
from spgsurgeon.models.preprocessing import Preprocessing


class TimmLibrary:
    """See `identity.Library`."""

    name = "timm"

    def architectures(self) -> list[str]:
        """Return the names of all architectures, without weights tags."""
        return sorted(timm.list_models())

    def default_classes(self, architecture: str) -> int:
        """Return the number of classes of the architecture's default weights."""
        cfg = get_pretrained_cfg(architecture)
        return 1000 if cfg is None else int(cfg.num_classes)

    def build(self, identity: Identity) -> nn.Module:
        """Return the module with random weights."""
        known = {f.name for f in dataclasses.fields(PretrainedCfg)}
        cfg = {k: v for k, v in (identity.pretrained_cfg or {}).items() if k in known}
        try:
            module = timm.create_model(
                identity.architecture,
                pretrained_cfg=cfg or None,
                num_classes=identity.num_classes,
                **identity.model_args,
            )
        except (TypeError, ValueError, RuntimeError) as error:
            raise ArchitectureError(f"timm can't build {identity.architecture}: {error}") from error
        return module

    def pretrained(self, architecture: str, tag: str | None) -> tuple[nn.Module, Identity]:
        """Return the module with the weights of `tag`; `architecture` may be a `hf-hub:` name."""
        name = f"{architecture}.{tag}" if tag else architecture
        try:
            module = timm.create_model(name, pretrained=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise _explain_missing_weights(name, error) from error
        cfg: dict[str, Any] = dict(cast(Any, module).pretrained_cfg)
        return module, Identity(
            library=self.name,
            architecture=str(cfg.get("architecture") or architecture),
            num_classes=int(cast(Any, module).num_classes),
            model_args=_json_args(getattr(module, "_model_args", {})),
            pretrained_cfg=_without_source(cfg),
        )

    def args_from_tensors(self, identity: Identity, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return `in_chans` where the first convolution of the checkpoint has another number of input channels."""
        cfg = identity.pretrained_cfg or _default_cfg(identity.architecture)
        first_conv = cfg.get("first_conv")
        weight = tensors.get(f"{first_conv}.weight") if isinstance(first_conv, str) else None
        if weight is None or weight.dim() != 4 or weight.shape[1] == cfg.get("input_size", (3,))[0]:
            return {}
        return {"in_chans": int(weight.shape[1])}

    def preprocessing(self, identity: Identity, module: nn.Module) -> Preprocessing:
        """Return timm's own resolution of the model's data configuration."""
        data = resolve_model_data_config(module)
        channels, height, width = data["input_size"]
        return Preprocessing(
            input_size=(int(channels), int(height), int(width)),
            mean=tuple(data["mean"]),
            std=tuple(data["std"]),
            interpolation=data["interpolation"],
            crop_pct=float(data["crop_pct"]),
        )

    def config(self, identity: Identity, module: nn.Module, label_names: list[str] | None) -> dict[str, Any]:
        """Return what timm itself writes for the Hub, so that it reads the folder as `local-dir:`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            extra = {"label_names": label_names} if label_names else None
            save_config_for_hf(module, str(path), model_config=extra, model_args=identity.model_args)
            config: dict[str, Any] = json.loads(path.read_text())
        return config

    def identity_from_config(self, config: Mapping[str, Any]) -> Identity:
        """Return what a Hub config.json says."""
        cfg = dict(config.get("pretrained_cfg") or {})
        architecture = str(config.get("architecture") or cfg.get("architecture"))
        if architecture not in timm.list_models():
            raise ArchitectureError(
                f"config.json names the architecture {architecture!r}, which timm {timm.__version__} does not have",
                hint=did_you_mean(architecture, timm.list_models()),
            )
        if config.get("label_names"):
            cfg["label_names"] = config["label_names"]
        num_classes = config.get("num_classes", cfg.get("num_classes"))
        args = {k: v for k, v in dict(config.get("model_args") or {}).items() if k != "num_classes"}
        return Identity(
            library=self.name,
            architecture=architecture,
            num_classes=self.default_classes(architecture) if num_classes is None else int(num_classes),
            model_args=args,
            pretrained_cfg=cfg or None,
        )


def _default_cfg(architecture: str) -> dict[str, Any]:
    cfg = get_pretrained_cfg(architecture)
    return {} if cfg is None else dict(cfg.to_dict())


def _without_source(cfg: dict[str, Any]) -> dict[str, Any]:
    """Return the description of the weights without where they came from: they are about to change."""
    source = {"url", "file", "state_dict", "hf_hub_id", "hf_hub_filename", "source"}
    return {k: v for k, v in cfg.items() if k not in source}


def _json_args(args: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in args.items() if k != "num_classes" and isinstance(v, (str, int, float, bool, list, tuple))}


def _explain_missing_weights(name: str, error: Exception) -> SurgeonError:
    if "Unknown model" in str(error):
        architecture = name.partition(".")[0]
        return ArchitectureError(f"timm has no model {name!r}", hint=did_you_mean(architecture, timm.list_models()))
    if "Invalid pretrained tag" in str(error):
        tags = timm.list_pretrained(name.partition(".")[0] + ".*")
        return ArchitectureError(f"timm has no weights {name!r}; it has {', '.join(tags) or 'none for this model'}")
    if isinstance(error, OSError):
        return SurgeonError(
            f"the weights of timm/{name} are not in the cache and could not be downloaded: {_first_line(error)}",
            hint="check the network, give a file, or use --random-weights where training starts from nothing",
        )
    return SurgeonError(f"timm could not load the weights of {name}: {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
