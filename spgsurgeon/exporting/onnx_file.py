"""Write a model as one ONNX file, and prove that file against the model before it gets its name.

Shapes: N batch, K classes; `images` is [N, channels, height, width], `logits` (and, of a model with several outputs,
`auxiliary`) is [N, K], or [N, K, height, width] for a prediction per pixel.
"""

from __future__ import annotations

import copy
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from spgsurgeon.errors import SurgeonError, UsageError, VerificationError
from spgsurgeon.exporting.agreement import HINT, Agreement, compare, reason, run_both
from spgsurgeon.exporting.silence import silenced
from spgsurgeon.models import IMAGES
from spgsurgeon.replicas import outputs_of

# Below 18 the exporter leaves the graph at 18 without an error (torchlib is written for 18); 23 is torch's own maximum.
OPSETS = range(18, 24)
PROTOBUF_LIMIT = 2**31  # bytes, of one serialised message
OUTPUTS = ("main", "all")
BATCH_SIZES = (1, 2, 7)
BATCH_SIZES_OF_MAPS = (1, 2, 3)  # a picture has a logit for each class and pixel
TRAINING_OPERATORS = frozenset({"Dropout", "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform"})


@dataclass(frozen=True)
class OnnxReport:
    """How an exported file compares with its model, in absolute float32 logits, over all batch sizes together.

    `outputs` says it of each output of the graph, by name; the properties of all of them.
    """

    path: Path
    opset: int
    batch_sizes: tuple[int, ...]
    outputs: dict[str, Agreement]
    top1_equal: bool = True

    @property
    def largest_difference(self) -> float:
        """How far a logit is from the model's at most."""
        return max(agreement.largest_difference for agreement in self.outputs.values())

    @property
    def logits_scale(self) -> float:
        """The model's largest absolute logit."""
        return max(agreement.logits_scale for agreement in self.outputs.values())

    @property
    def top1_compared(self) -> int:
        """How many predictions have a margin above the allowed difference: there top-1 agrees."""
        return sum(agreement.top1_compared for agreement in self.outputs.values())


class _Outputs(nn.Module):
    """The model reduced to its first `count` outputs (None: all), that of inference first."""

    def __init__(self, model: nn.Module, count: int | None) -> None:
        super().__init__()
        self.model = model
        self.count = count

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return outputs_of(self.model(images))[: self.count]


def export_onnx(
    model: nn.Module,
    path: Path,
    input_size: tuple[int, int, int],
    *,
    outputs: str = "main",
    opset: int | None = None,
    batch_sizes: Sequence[int] | None = None,
    tolerance: float = 1e-4,
    seed: int = 0,
) -> OnnxReport:
    """Write `model` to `path` as one ONNX file with a dynamic batch, and return how it compares with the model.

    The graph has the input `images`, float32 weights and evaluation behaviour; it is made from a copy on the CPU, so
    mode, device, dtype and hooks of `model` stay as they are. `outputs` is "main" for `logits` alone (of torchvision's
    segmentation models the entry `out`), or "all" for those of the auxiliary head too, as `auxiliary`. `input_size` is
    (channels, height, width). The exporter's default opset is used where `opset` is None.

    Before `path` exists, the file is checked by ONNX and run by ONNX Runtime at every one of `batch_sizes` (1, 2 and 7;
    1, 2 and 3 for maps), on random images that the export did not see: of each output the largest difference may be
    `tolerance` times the logits' scale, and top-1 must agree wherever the model's margin is above that (law 9). A file
    that fails is removed and VerificationError raised; an older file at `path` is then untouched. Refuses opsets
    outside `OPSETS`, models above protobuf's 2 GB, and "all" of a model that has one output only.
    """
    _refuse_opset(opset)
    check_outputs(outputs)
    _refuse_oversize(model)
    reference = _Outputs(copy.deepcopy(model), 1 if outputs == "main" else None).to("cpu", torch.float32).eval()
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=path.parent) as folder, silenced(), torch.no_grad():
        shapes = _output_shapes(reference, input_size)
        names = _output_names(shapes, outputs)
        sizes = batch_sizes or (BATCH_SIZES_OF_MAPS if len(shapes[0]) > 2 else BATCH_SIZES)
        draft = Path(folder) / path.name
        written_opset = _write_graph(reference, draft, input_size, names, opset)
        pairs = run_both(reference, draft, names, input_size, sizes, seed)
        agreements = {name: compare(name, of_output, tolerance) for name, of_output in pairs.items()}
        os.replace(draft, path)
    return OnnxReport(path, written_opset, tuple(sizes), agreements)


def check_outputs(outputs: str) -> None:
    """Raise UsageError for what is not one of `OUTPUTS`."""
    if outputs not in OUTPUTS:
        raise UsageError(f"the outputs of a graph are {' or '.join(OUTPUTS)}, not {outputs!r}")


def _output_shapes(reference: _Outputs, input_size: tuple[int, int, int]) -> list[torch.Size]:
    """Return the shapes of the model's outputs for one picture. Raises SurgeonError where they are no logits."""
    try:
        shapes = [output.shape for output in reference(torch.zeros(1, *input_size))]
    except Exception as error:  # a stranger's model
        raise SurgeonError(
            f"the model fails on a picture of {list(input_size)}: {reason(error)}", hint="is this the size it takes?"
        ) from error
    if flat := [shape for shape in shapes if len(shape) < 2]:
        raise SurgeonError(
            f"the model returns a tensor of {len(flat[0])} dimensions, not logits of shape [N, K, ...]",
            hint="export safetensors instead",
        )
    return shapes


def _output_names(shapes: Sequence[torch.Size], outputs: str) -> list[str]:
    if outputs == "all" and len(shapes) == 1:
        raise UsageError("all outputs were asked for, but in eval mode the model has one only", hint="leave it at main")
    return ["logits", *(f"auxiliary{number or ''}" for number in range(len(shapes) - 1))]


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


def _write_graph(
    reference: nn.Module, draft: Path, input_size: tuple[int, int, int], names: Sequence[str], opset: int | None
) -> int:
    """Export to `draft`, check the graph, and return its opset."""
    try:
        program = torch.onnx.export(
            reference,
            (torch.zeros(2, *input_size),),  # not 1: torch.export would take a batch of one for a constant
            dynamo=True,
            input_names=[IMAGES],
            output_names=list(names),
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
