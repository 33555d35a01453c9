"""Write a model as one ONNX file, and prove that file against the model before it gets its name.

Shapes: N batch, K classes; `logits` (and, of a model with several outputs, `auxiliary`) is [N, K], or [N, K, height,
width] for a prediction per pixel, [N, length, K] per token; `start_logits` and `end_logits` are [N, length].
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon import __version__
from spgsurgeon.errors import SurgeonError, UsageError, VerificationError
from spgsurgeon.exporting.agreement import HINT, Batch, Readout, reason
from spgsurgeon.exporting.layout import OPSETS
from spgsurgeon.exporting.session import onnx_session
from spgsurgeon.exporting.silence import silenced
from spgsurgeon.exporting.subject import (
    HALF_TOLERANCE,
    TOLERANCE,
    Comparison,
    Outputs,
    Subject,
    check_outputs,
    subject_of,
)
from spgsurgeon.models import BATCH, GraphInputs
from spgsurgeon.runtime import require

PRODUCER = "spgsurgeon"
PROTOBUF_LIMIT = 2**31  # bytes, of one serialised message
TRAINING_OPERATORS = frozenset({"Dropout", "Bernoulli", "RandomNormal", "RandomNormalLike", "RandomUniform"})


@dataclass(frozen=True, kw_only=True)
class OnnxReport(Comparison):
    """How an ONNX file compares with its model."""

    path: Path
    opset: int


def export_onnx(
    model: nn.Module,
    path: Path,
    inputs: GraphInputs,
    *,
    outputs: str = "main",
    opset: int | None = None,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
    readout: Readout | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> OnnxReport:
    """Write `model` to `path` as one ONNX file with the `inputs`, and return how it compares with the model.

    The graph has float32 weights and evaluation behaviour; it is made from a copy on the CPU, so mode, device, dtype
    and hooks of `model` stay as they are. `outputs` is "main" for the logits alone (of torchvision's segmentation
    models the entry `out`), or "all" for those of the auxiliary head too, as `auxiliary`. The exporter's default opset
    is used if `opset` is None. `half` keeps weights and computes in half precision; inputs and outputs stay float32.
    `metadata` becomes the file's metadata_props. `readout` puts the classes of logits in second place, if they are not
    there.

    Before `path` exists, the file is checked by ONNX and run by ONNX Runtime on random inputs of several sizes, padded
    if they can be, that the export did not see: of each output the largest difference may be `tolerance` (1e-4; 1e-2
    in half precision) times the logits' scale, and top-1 must agree wherever the model's margin is above that (law 9).
    A file that fails is removed and VerificationError raised; an older file at `path` is then untouched. Refuses opsets
    outside `OPSETS`, models above protobuf's 2 GB, and "all" of a model without auxiliary outputs.
    """
    check_onnx()
    _refuse_opset(opset)
    check_outputs(outputs)
    _refuse_oversize(model)
    with tempfile.TemporaryDirectory(prefix=".onnx-", dir=path.parent) as folder, silenced(), torch.no_grad():
        subject = subject_of(model, inputs, outputs, readout)
        draft = Path(folder) / path.name
        written_opset = _write_graph(subject.drafted(half, seed), subject, draft, opset, dict(metadata or {}))
        allowed = tolerance or (HALF_TOLERANCE if half else TOLERANCE)
        agreements = subject.compare(_runner(draft, subject.names), "ONNX Runtime", allowed, seed)
        os.replace(draft, path)
    return OnnxReport(inputs.compared, agreements, half, path=path, opset=written_opset)


def check_onnx() -> None:
    """Raise UsageError if what writes and checks ONNX files is not installed."""
    require("onnx", "an ONNX file")


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


def _write_graph(drafted: Outputs, subject: Subject, draft: Path, opset: int | None, metadata: dict[str, str]) -> int:
    """Export to `draft`, check the graph, and return its opset."""
    import onnx

    example = subject.inputs.example()
    try:
        program = torch.onnx.export(
            drafted,
            tuple(example.values()),
            dynamo=True,
            input_names=list(example),
            output_names=list(subject.names),
            dynamic_shapes={"inputs": tuple(subject.inputs.open[name] for name in example)},
            opset_version=opset,
            verbose=False,
        )
        assert program is not None
        _say_what_it_is(program.model, metadata)
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
    return _check_graph(program.model, opset, subject.inputs)


def _say_what_it_is(graph_model: Any, metadata: dict[str, str]) -> None:
    """Put in who made the file and what it is, in place of the exporter's notes.

    Those hold paths of this machine, names of our own classes, and its program in a second form.
    """
    graph = graph_model.graph
    for noted in (graph, *graph.inputs, *graph.initializers.values()):
        noted.metadata_props.clear()
    for node in graph.all_nodes():
        for noted in (node, *node.outputs):
            noted.metadata_props.clear()
    graph_model.producer_name, graph_model.producer_version = PRODUCER, __version__
    graph_model.metadata_props.clear()
    graph_model.metadata_props.update(metadata)


def _runner(draft: Path, names: Sequence[str]) -> Callable[[Batch], list[Tensor]]:
    """Return what runs the file in ONNX Runtime. Raises VerificationError if that refuses it."""
    try:
        session = onnx_session(draft)
    except Exception as error:
        raise VerificationError(f"ONNX Runtime refuses the exported graph: {reason(error)}", hint=HINT) from error

    def run(batch: Batch) -> list[Tensor]:
        found = session.run(list(names), {name: value.numpy() for name, value in batch.items()})
        return [torch.from_numpy(output) for output in found]

    return run


def _check_graph(graph_model: Any, opset: int | None, inputs: GraphInputs) -> int:
    """Return the graph's opset; refuse another one than was asked for, a fixed size, and training-only operators."""
    written: int = graph_model.opset_imports[""]
    if opset is not None and written != opset:
        raise SurgeonError(f"the exporter wrote opset {written}, not {opset}", hint=f"use opset {written}")
    graph = graph_model.graph
    for value in (*graph.inputs, *graph.outputs):
        for place, name in inputs.open.get(value.name, {0: BATCH}).items():
            if isinstance(value.shape[place], int):
                raise VerificationError(
                    f"the exported graph fixes the {name} of {value.name!r} to {value.shape[place]}",
                    hint=f"the forward must take the {name} from its input, not from a constant",
                )
    leftovers = sorted({node.op_type for node in graph.all_nodes()} & TRAINING_OPERATORS)
    if leftovers:
        raise VerificationError(
            f"the exported graph holds operators for training: {', '.join(leftovers)}",
            hint="the forward must switch dropout and other noise off in eval mode (self.training)",
        )
    return written
