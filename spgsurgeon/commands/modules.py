"""Surgery on modules in memory: what a notebook calls, and what the verbs on paths are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from spgsurgeon.checkpoint import atomic_file, content_hash, write_safetensors, write_torch
from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.exporting import FILES, GRAPHS, SUFFIXES, Comparison, export_onnx, export_program
from spgsurgeon.models import (
    DepthSite,
    InnerSite,
    InnerSites,
    Site,
    find_depth_site,
    find_sites,
    graph_inputs_of,
    head_of_class,
    takes_images,
)
from spgsurgeon.recipe import replicas_of
from spgsurgeon.replicas import (
    GraftedModel,
    Place,
    base_of_state,
    detach,
    layout_of,
    refuse_grafted,
    refuse_wrapped,
    unwrapped,
)
from spgsurgeon.replicas.kinds import DEFAULT
from spgsurgeon.surgery import prove_file
from spgsurgeon.tasks import TASKS

FORMATS = tuple(FILES)
_IMAGENET = (3, 224, 224)


def graft(
    model: nn.Module,
    trp: str = DEFAULT,
    *,
    head_batch: str = "stacked",
    site: str | Place | Sequence[str | Place] | None = None,
    example: Tensor | None = None,
    **settings: Any,
) -> GraftedModel:
    """Return `model` with temporary replicas of the kind `trp`: at its heads (dropout), after its last stage (depth).

    In train mode the grafted model gives (T+1)*N rows of logits, step-major, for `spg_loss`; in eval mode it is the
    base, bit for bit. The base is held, not copied. `settings` are those of the kind, with the names, ranges and
    defaults of a recipe's trp section: `replicas` (3), dropout's `rate` (0.2), depth's `blocks`, `block` and `init`;
    None is the default too. `head_batch` "sequential" takes the steps through a segmentation model's heads one after
    the other, "rollouts" each through the whole model. Two controls have no replicas, and T = 0: "none", and
    "fixed-dropout", whose dropout of `rate` falls on the base's own step.

    `site` is the path of the layer that makes the logits, or a list of paths where there are several; a head of several
    layers that reads a map is a `spgsurgeon.Place(path, width=D)`. Left out, sites are found by tracing the model on
    images as large as those of `example` ([N, channels, H, W], default 224 pixels), which computes nothing. Replicas
    of depth are known for some families, whose last stage is found; `site` is not for them.

    Raises ArchitectureError if a head is not a Linear or 1x1 convolution, heads have different classes or a family has
    no known depth, UsageError for settings that can't be and a model that is grafted already, compiled or wrapped.
    """
    if not isinstance(model, nn.Module):
        raise UsageError(f"graft takes a module, not a {type(model).__name__}", hint="spgsurgeon.load(path) gives one")
    refuse_wrapped(model)
    refuse_grafted(model)  # before its sites are looked for, which the hooks of a graft would be in the way of
    asked = replicas_of(trp, settings)
    if site is not None:
        return asked.attach_to(model, asked.places_at(site), head_batch)
    images = torch.empty(1, 3, 224, 224, device="meta") if example is None else example
    found = _FoundSites(model, images.to(next(model.parameters()).dtype))
    return asked.settled(found).attach_to(model, asked.places(found), head_batch)


class _FoundSites:
    """Where replicas can attach to a module."""

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._model, self._example = model, example

    @cached_property
    def sites(self) -> Sequence[Site]:
        return find_sites(self._model, self._example)

    @cached_property
    def depth_site(self) -> DepthSite:
        return find_depth_site(self._model, self._example)

    def inner_site(self, what: str) -> InnerSite:
        return self._inner_sites.find(what)

    @cached_property
    def _inner_sites(self) -> InnerSites:
        return InnerSites(self._model, self._example)


@overload
def strip(grafted: nn.Module) -> nn.Module: ...


@overload
def strip(grafted: Mapping[str, Tensor]) -> dict[str, Tensor]: ...


def strip(grafted: nn.Module | Mapping[str, Tensor]) -> nn.Module | dict[str, Tensor]:
    """Return the base without its replicas: its keys, their order, shapes and dtypes are those it was grafted with.

    Raises VerificationError if they are not. The grafted model can't be used any more; it may be compiled, or wrapped
    by DistributedDataParallel. Of the state dict of a grafted model, as one's own loop or Lightning saves it, the
    result is that of the base, with the names that the base has by itself. Raises UsageError for what is not grafted.
    """
    if isinstance(grafted, Mapping):
        return base_of_state(grafted)
    found = unwrapped(grafted) if isinstance(grafted, nn.Module) else grafted
    if not isinstance(found, GraftedModel):
        raise UsageError(
            f"strip takes a grafted model, or its state dict, not a {type(found).__name__}", code="not-grafted"
        )
    return detach(found)


def export(
    model: nn.Module,
    path: str | Path,
    *,
    input_size: tuple[int, int, int] | None = None,
    opset: int | None = None,
    onnx_outputs: str = "main",
    half: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Write `model` to `path`, atomically, in the format its suffix names: .safetensors, .pt, .onnx, .pt2.

    An ONNX file or a program of torch.export (.pt2) has a dynamic batch of images of `input_size` (channels, height,
    width; default 3 x 224 x 224), or of the texts or sounds that a model of transformers takes, whose length is open
    too. It is compared with the model first, any other is read back and must hold the same bits; a miss raises
    VerificationError and leaves no file. `half` makes a graph of half precision. Of a segmentation model,
    `onnx_outputs` "all" also writes the auxiliary output. Returns path, format and, for a graph, the largest difference
    of the logits, else the content hash of the file.
    """
    if isinstance(model, GraftedModel):
        raise UsageError("the model is grafted", hint="export strip(grafted)")
    path = Path(path)
    kind = format_of(path)
    if half and kind not in GRAPHS:
        raise UsageError(f"half precision is for {' and '.join(GRAPHS)} files, and this is a {kind} file")
    document: dict[str, Any] = {"path": str(path), "format": kind}
    weights_hash = content_hash(model.state_dict())
    with atomic_file(path, force=force) as temporary:
        if kind in GRAPHS:
            size = input_size or (_IMAGENET if takes_images(model) else None)
            inputs = graph_inputs_of(model, size)
            given: dict[str, Any] = {"half": half, "metadata": {"content_hash": weights_hash}}
            given["readout"] = _readout(model)
            report: Comparison = (
                export_onnx(model, temporary, inputs, outputs=onnx_outputs, opset=opset, **given)
                if kind == "onnx"
                else export_program(model, temporary, inputs, **given)
            )
            document["largest_difference"] = report.largest_difference
        else:
            (write_torch if kind == "pt" else write_safetensors)(temporary, model.state_dict())
            document["content_hash"] = prove_file(temporary, weights_hash, layout_of(model))
    return document


def _readout(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Return what puts the classes of a model's logits in second place, if its class says that they are elsewhere."""
    head = head_of_class(type(model))
    task = TASKS.get(head.task) if head else None
    return task.readout if task else None


def format_of(path: Path) -> str:
    """Return the format that a file's suffix names. Raises UsageError for others."""
    kind = SUFFIXES.get(path.suffix)
    if kind is None:
        near = did_you_mean(path.suffix, SUFFIXES)
        raise UsageError(f"{path.name} has none of the suffixes {', '.join(SUFFIXES)}", hint=near)
    return kind
