"""`spgsurgeon inspect`: what a checkpoint is and where it can be grafted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.checkpoint.hashing import DTYPE_NAMES, content_hash
from spgsurgeon.workflows.opening import OpenedModel, open_model, state_of

DEFAULT_REPLICAS = 3


def inspect(
    model: str,
    *,
    weights: str | None = None,
    arch: str | None = None,
    random_seed: int | None = None,
    tensors: bool = False,
) -> dict[str, Any]:
    """Return the document of `inspect --json` for the model that `model` names; with `tensors`, each one is listed."""
    opened = open_model(model, weights=weights, arch=arch, random_seed=random_seed)
    document = describe(opened)
    document["next"] = _next_command(opened)
    document["notes"] = opened.notes
    if tensors:
        document["tensor_list"] = [
            {"key": key, "dtype": DTYPE_NAMES[value.dtype], "shape": list(value.shape)}
            for key, value in state_of(opened.module).items()
        ]
    return document


def describe(opened: OpenedModel) -> dict[str, Any]:
    """Return what an opened base is, as plain data."""
    identity, checkpoint = opened.identity, opened.checkpoint
    state = state_of(opened.module)
    site = opened.site
    return {
        "source": opened.source,
        "format": opened.format,
        "producer": checkpoint.producer if checkpoint else identity.library,
        "library": identity.library,
        "architecture": identity.architecture,
        "candidates": [identity.name],
        "head": {"module": site.module, "type": site.type, "width": site.width, "classes": site.classes},
        "parameters": sum(p.numel() for p in opened.module.parameters()),
        "tensors": len(state),
        "dtypes": dict(Counter(DTYPE_NAMES[value.dtype] for value in state.values())),
        "prefixes": list(checkpoint.prefixes) if checkpoint else [],
        "ema": {"found": checkpoint.has_ema, "used": checkpoint.weights == "ema"} if checkpoint else None,
        "content_hash": content_hash(state),
        "unsafe": [],
        "non_finite": [key for key, value in state.items() if not _finite(value)],
        "sites": {
            "dropout": {
                "module": site.module,
                "side": site.side,
                "width": site.width,
                "temporary_parameters": site.temporary_parameters(DEFAULT_REPLICAS),
            }
        },
        "grafted": opened.manifest.trp if opened.manifest and opened.has_replicas else None,
    }


def _next_command(opened: OpenedModel) -> str:
    if not opened.has_replicas:
        random = " --random-weights" if opened.format == "name" and opened.notes else ""
        return f"spgsurgeon graft {opened.source}{random} -o grafted/"
    return f"spgsurgeon train {opened.source} --recipe RECIPE -o RUN/"


def _finite(value: Tensor) -> bool:
    return not value.is_floating_point() or bool(torch.isfinite(value).all())
