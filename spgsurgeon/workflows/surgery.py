"""Surgery on modules in memory: what a notebook calls, and what the verbs on paths are made of."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint.writing import atomic_file, write_safetensors, write_torch
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.exporting.onnx_file import export_onnx
from spgsurgeon.models.sites import find_sites
from spgsurgeon.trp.grafted import GraftedModel, attach, detach

FORMATS = ("safetensors", "pt", "onnx")
SUFFIXES = {".safetensors": "safetensors", ".pt": "pt", ".pth": "pt", ".onnx": "onnx"}


def graft(
    model: nn.Module,
    trp: str = "dropout",
    *,
    replicas: int = 3,
    rate: float = 0.2,
    site: str | Sequence[str] | None = None,
    example: Tensor | None = None,
) -> GraftedModel:
    """Return `model`, an image classifier, with temporary replicas at the input of each of its heads.

    In train mode the grafted model gives (T+1)*N rows of logits, step-major, for `spg_loss`; in eval mode it is the
    base, bit for bit. The base is held, not copied. `site` is the path of the layer that makes the logits, or a list of
    paths where there are several; left out, they are found by tracing the model on pictures as large as those of
    `example` ([N, channels, H, W], default 224 pixels), which computes nothing.

    Raises ArchitectureError where a head is no Linear or 1x1 convolution, UsageError for settings that can't be.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"graft takes a module, not a {type(model).__name__}", hint="spgsurgeon.load(path) gives one")
    if site is None:
        parameter = next(model.parameters())
        images = torch.empty(1, 3, 224, 224, device="meta") if example is None else example
        site = [found.module for found in find_sites(model, images.to(parameter.dtype))]
    return attach(model, site, trp, **replica_settings(trp, replicas, rate))


def strip(grafted: GraftedModel) -> nn.Module:
    """Return the base without its replicas: its keys, their order, shapes and dtypes are those it was grafted with.

    Raises VerificationError if they are not. The grafted model can't be used any more.
    """
    if not isinstance(grafted, GraftedModel):
        raise UsageError(f"strip takes a grafted model, not a {type(grafted).__name__}")
    return detach(grafted)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    input_size: tuple[int, int, int] = (3, 224, 224),
    opset: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write `model` to `path`, atomically, in the format its suffix names: .safetensors, .pt, .onnx.

    An ONNX file has a dynamic batch of pictures of `input_size` (channels, height, width) and is compared with the
    model in onnxruntime first; a miss raises VerificationError and leaves no file. Returns path, format and, for ONNX,
    the largest difference of the logits.
    """
    if isinstance(model, GraftedModel):
        raise UsageError("the model is grafted", hint="export strip(grafted)")
    path = Path(path)
    kind = format_of(path)
    document: dict[str, Any] = {"path": str(path), "format": kind}
    with atomic_file(path, force=force) as temporary:
        if kind == "onnx":
            report = export_onnx(model, temporary, input_size, opset=opset)
            document["largest_difference"] = report.largest_difference
        elif kind == "pt":
            write_torch(temporary, model.state_dict())
        else:
            write_safetensors(temporary, model.state_dict())
    return document


def format_of(path: Path) -> str:
    """Return the format that a file's suffix names. Raises UsageError for others."""
    kind = SUFFIXES.get(path.suffix)
    if kind is None:
        near = did_you_mean(path.suffix, SUFFIXES)
        raise UsageError(f"{path.name} has none of the suffixes {', '.join(SUFFIXES)}", hint=near)
    return kind


def replica_settings(kind: str, replicas: int, rate: float) -> dict[str, Any]:
    """Return the settings that replicas of `kind` have."""
    return {} if kind == "none" else {"replicas": replicas, "rate": rate}
