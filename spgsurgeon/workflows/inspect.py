"""`spgsurgeon inspect`: what a checkpoint is and where it can be grafted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from shlex import quote
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
    options = {"--arch": arch, "--weights": weights, "--random-weights": "" if random_seed is not None else None}
    document["next"] = _next_command(opened, document, options)
    document["notes"] = opened.notes
    if tensors:
        document["tensor_list"] = [
            {"key": key, "dtype": DTYPE_NAMES[value.dtype], "shape": list(value.shape)}
            for key, value in state_of(opened.module).items()
        ]
    return document


def describe(opened: OpenedModel, known_hash: str | None = None) -> dict[str, Any]:
    """Return what an opened base is, as plain data; `known_hash` is its content hash, where it is known already."""
    identity, checkpoint = opened.identity, opened.checkpoint
    state = state_of(opened.module)
    site = opened.site
    return {
        "source": opened.source,
        "format": opened.format,
        "producer": _producer(opened),
        "library": identity.library,
        "architecture": identity.architecture,
        "candidates": [identity.name],
        "head": {"module": site.module, "type": site.type, "width": site.width, "classes": site.classes},
        "parameters": sum(p.numel() for p in opened.module.parameters()),
        "tensors": len(state),
        "dtypes": dict(Counter(DTYPE_NAMES[value.dtype] for value in state.values())),
        "prefixes": list(checkpoint.prefixes) if checkpoint else [],
        "ema": {"found": checkpoint.has_ema, "used": checkpoint.weights == "ema"} if checkpoint else None,
        "content_hash": known_hash or content_hash(state),
        "unsafe": [],
        "non_finite": non_finite(state),
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


def _producer(opened: OpenedModel) -> str | None:
    if opened.checkpoint is None:
        return opened.identity.library
    return "spgsurgeon" if opened.manifest else opened.checkpoint.producer


def _next_command(opened: OpenedModel, document: dict[str, Any], options: dict[str, str | None]) -> str:
    """Return the command that goes on from here, with the `options` that opened the model (None: not given)."""
    if document["non_finite"]:
        return "nothing: weights with NaN or infinity can't be retrained"
    given = [
        f"{option} {quote(value) if value else ''}".strip() for option, value in options.items() if value is not None
    ]
    model = " ".join([quote(document["source"]), *given])
    if opened.has_replicas:
        return f"spgsurgeon train {model} --recipe RECIPE -o RUN/"
    return f"spgsurgeon graft {model} -o grafted/"


def non_finite(state: Mapping[str, Tensor]) -> list[str]:
    """Return the keys of tensors that hold a NaN or an infinity."""
    return [key for key, value in state.items() if value.is_floating_point() and not torch.isfinite(value).all()]
