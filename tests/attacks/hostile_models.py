"""Folders and checkpoints whose words would make a model library fetch, read, write or build what no weights need."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import shufflenet_v2_x0_5

from spgsurgeon.checkpoint.folders import read_grafted_folder, write_grafted_folder

CLASSES = 10


@dataclass(frozen=True)
class Attack:
    """What a file says beyond the architecture: `args` for the factory, `cfg` as timm's pretrained_cfg."""

    args: dict[str, Any] = field(default_factory=dict)
    cfg: dict[str, Any] = field(default_factory=dict)


def attacks(payload: Path, victim: Path) -> dict[str, Attack]:
    """Return attacks by name: each must be refused by the names of all of its `args`, and leave `victim` empty."""
    url, fetch = f"file://{payload}", {"pretrained": True, "cache_dir": str(victim)}
    far = "http://127.0.0.1:9/weights.pth"
    alone: dict[str, Any] = {
        "checkpoint_path": str(payload),
        "pretrained_cfg": {"url": url},
        "url": url,
        "file": str(payload),
        "hf_hub_id": "a/b",
        "out_indices": [0],
        "norm_layer": "layernorm",
        "device": "cuda",
        "dtype": "float64",
        "weights": "DEFAULT",
        "weights_backbone": "DEFAULT",
        "a b\n": 1,
        **dict.fromkeys(
            ("custom_load", "features_only", "scriptable", "exportable", "no_jit", "pruned", "progress"), True
        ),
    }
    return {
        **{name: Attack({name: value}) for name, value in alone.items()},
        "a url": Attack(fetch, {"url": url}),
        "a url far away": Attack(fetch, {"url": far}),
        "a url with a format": Attack(fetch, {"url": [url, "big_vision"], "custom_load": True}),
        "an overlay": Attack(fetch | {"pretrained_cfg_overlay": {"url": url, "hf_hub_id": ""}}),
        "the hub": Attack(fetch, {"hf_hub_id": "timm/test_resnet.r160_in1k", "source": "hf-hub"}),
        "a file": Attack(fetch, {"file": str(payload), "source": "file"}),
        "a foreign file": Attack(fetch, {"file": str(payload), "custom_load": True}),
        "tensors in the text": Attack(fetch, {"state_dict": {"fc.weight": [0]}}),
        "allowed beside not allowed": Attack({"checkpoint_path": str(payload), "in_chans": 3, "img_size": 160}),
    }


def hub_folder(folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor]) -> Path:
    folder.mkdir(parents=True)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def training_checkpoint(path: Path, model: str, state: dict[str, torch.Tensor], **args: Any) -> Path:
    """Write what timm's train.py writes."""
    namespace = argparse.Namespace(model=model, **args)
    torch.save({"epoch": 1, "arch": model, "version": 2, "args": namespace, "state_dict": state}, path)
    return path


def timm_config(attack: Attack, **more: Any) -> dict[str, Any]:
    cfg = {"num_classes": CLASSES, "input_size": [3, 160, 160]} | attack.cfg
    return {
        "architecture": "test_resnet",
        "num_classes": CLASSES,
        "model_args": attack.args,
        "pretrained_cfg": cfg,
    } | more


def forms(root: Path, attack: Attack) -> Iterator[tuple[str, Path]]:
    """Write the attack into new files below `root`, in every form that it can take, and yield each with its name."""
    state = timm.create_model("test_resnet", num_classes=CLASSES).state_dict()
    misfit = state | {"fc.weight": torch.zeros(CLASSES, 97)}
    yield "hub", hub_folder(root / "hub", timm_config(attack), state)
    yield "misfit", hub_folder(root / "misfit", timm_config(attack), misfit)
    wrapper = timm_config(attack, model_type="timm_wrapper")
    yield "transformers", hub_folder(root / "transformers", wrapper, state)
    torchvision = timm_config(attack, library="torchvision", architecture="shufflenet_v2_x0_5")
    yield "torchvision", hub_folder(root / "torchvision", torchvision, shufflenet_v2_x0_5(num_classes=10).state_dict())
    overlay = {"pretrained_cfg_overlay": attack.cfg} if attack.cfg else {}
    says = {"model_kwargs": attack.args | overlay}
    yield "checkpoint", training_checkpoint(root / "checkpoint.pth", "test_resnet", state, **says)
    yield "misfit checkpoint", training_checkpoint(root / "misfit.pth", "test_resnet", misfit, **says)


def regrafted(folder: Path, sound: Path, attack: Attack, *, in_manifest: bool) -> Path:
    """Write the grafted folder `sound` again, with matching hashes and the attack in one of its documents."""
    grafted = read_grafted_folder(sound)
    folder.mkdir(parents=True)
    base, config = grafted.manifest.base, dict(grafted.config)
    if in_manifest:
        base = base | {"model_args": base["model_args"] | attack.args}
    else:
        config["model_args"] = config.get("model_args", {}) | attack.args
        config["pretrained_cfg"] = config["pretrained_cfg"] | attack.cfg
    write_grafted_folder(
        folder,
        base=load_file(grafted.base_weights),
        temporary=load_file(grafted.temporary_weights),
        config=config,
        manifest=replace(grafted.manifest, base=base),
    )
    return folder
