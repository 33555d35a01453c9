"""Write a model as one ONNX file, and prove that file against the model before it gets its name.

Shapes: N batch, K classes; `images` is [N, channels, height, width], `logits` is [N, K], or [N, K, height, width] for a
prediction per pixel.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from spgsurgeon.errors import SurgeonError, UsageError, VerificationError
from spgsurgeon.exporting.agreement import HINT, compare, reason, run_both
from spgsurgeon.exporting.silence import silenced

# Below 18 the exporter leaves the graph at 18 without an error (torchlib is written for 18); 23 is torch's own maximum.
OPSETS = range(18, 24)
PROTOBUF_LIMIT = 2**31  # bytes, of one serialised message
TRAINING_OPERATORS = frozenset({"Dropout", "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform"})


@dataclass(frozen=True)
class OnnxReport:
    """How an exported file compares with its model, in absolute float32 logits.

    `largest_difference` and `logits_scale` (the model's largest absolute logit) are over all batch sizes together.
    `top1_compared` counts the predictions whose margin in torch is above the allowed difference: there top-1 agrees.
    """

    path: Path
    opset: int
    batch_sizes: tuple[int, ...]
    largest_difference: float
    logits_scale: float
    top1_compared: int
    top1_equal: bool


class _Logits(nn.Module):
    """The model reduced to its logits: torchvision's segmentation models return them under `out`, with auxiliaries."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        outputs = self.model(images)
        logits = outputs["out"] if isinstance(outputs, Mapping) else outputs
        if not isinstance(logits, Tensor) or logits.dim() < 2:
            raise TypeError(f"the model returns {_describe(logits)}, not logits of shape [N, K, ...]")
        return logits


def export_onnx(
    model: nn.Module,
    path: Path,
    input_size: tuple[int, int, int],
    *,
    opset: int | None = None,
    batch_sizes: Sequence[int] = (1, 2, 7),
    tolerance: float = 1e-4,
    seed: int = 0,
) -> OnnxReport:
    """Write `model` to `path` as one ONNX file with a dynamic batch, and return how it compares with the model.

    The graph has the input `images` and the output `logits`, float32 weights and evaluation behaviour; it is made from
    a copy on the CPU, so mode, device, dtype and hooks of `model` stay as they are. `input_size` is (channels, height,
    width). The exporter's default opset is used where `opset` is None.

    Before `path` exists, the file is checked by ONNX and run by ONNX Runtime at every one of `batch_sizes`, on random
    images that the export did not see: the largest difference may be `tolerance` times the logits' scale, and top-1
    must agree wherever the model's margin is above that (law 9). A file that fails is removed and VerificationError
    raised; an older file at `path` is then untouched. Refuses opsets outside `OPSETS` and models above protobuf's 2 GB.
    """
    _refuse_opset(opset)
    _refuse_oversize(model)
    reference = _Logits(copy.deepcopy(model)).to("cpu", torch.float32).eval()
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=path.parent) as folder, silenced(), torch.no_grad():
        draft = Path(folder) / path.name
        written_opset = _write_graph(reference, draft, input_size, opset)
        found = compare(run_both(reference, draft, input_size, batch_sizes, seed), tolerance)
        os.replace(draft, path)
    return OnnxReport(path, written_opset, tuple(batch_sizes), top1_equal=True, **asdict(found))


def _describe(value: object) -> str:
    return f"a tensor of {value.dim()} dimensions" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def _refuse_opset(opset: int | None) -> None:
    if opset is not None and opset not in OPSETS:
        raise UsageError(
            f"opset {opset} is not supported",
            hint=f"choose one of {OPSETS[0]} to {OPSETS[-1]}, or leave it out for the exporter's default",
        )


def _refuse_oversize(model: nn.Module) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    size = sum(t.numel() * (4 if t.is_floating_point() else t.element_size()) for t in tensors)
    if size >= PROTOBUF_LIMIT:
        raise SurgeonError(
            f"the model has {size / 1e9:.1f} GB of float32 weights, above the 2 GB that one ONNX file can hold",
            hint="export safetensors instead",
        )


def _write_graph(reference: nn.Module, draft: Path, input_size: tuple[int, int, int], opset: int | None) -> int:
    """Export to `draft`, check the graph, and return its opset."""
    try:
        program = torch.onnx.export(
            reference,
            (torch.zeros(2, *input_size),),  # not 1: torch.export would take a batch of one for a constant
            dynamo=True,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: "batch"},),
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        _drop_stack_traces(program.model)
        onnx.save(program.model_proto, draft)
    except Exception as error:
        raise SurgeonError(
            f"torch could not export the model to ONNX: {reason(error)}",
            hint="the forward must be free of branches on tensor values and of operators that ONNX lacks; "
            "export safetensors instead",
        ) from error
    try:
        onnx.checker.check_model(str(draft), full_check=True)
    except Exception as error:
        raise VerificationError(f"ONNX refuses the exported graph: {reason(error)}", hint=HINT) from error
    return _check_graph(program.model, opset)


def _drop_stack_traces(graph_model: Any) -> None:
    """Remove the exporter's Python stack traces, which would publish paths of this machine."""
    for node in graph_model.graph.all_nodes():
        node.metadata_props.pop("pkg.torch.onnx.stack_trace", None)


def _check_graph(graph_model: Any, opset: int | None) -> int:
    """Return the graph's opset; refuse another one than was asked for, a fixed batch, and training-only operators."""
    written: int = graph_model.opset_imports[""]
    if opset is not None and written != opset:
        raise SurgeonError(f"the exporter wrote opset {written}, not {opset}", hint=f"use opset {written}")
    graph = graph_model.graph
    for value in (*graph.inputs, *graph.outputs):
        if isinstance(value.shape[0], int):
            raise VerificationError(
                f"the exported graph fixes the batch of {value.name!r} to {value.shape[0]}",
                hint="the forward must take the batch size from its input, not from a constant",
            )
    leftovers = sorted({node.op_type for node in graph.all_nodes()} & TRAINING_OPERATORS)
    if leftovers:
        raise VerificationError(
            f"the exported graph holds operators for training: {', '.join(leftovers)}",
            hint="the forward must switch dropout and other noise off in eval mode (self.training)",
        )
    return written
