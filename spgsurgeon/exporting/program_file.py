"""Write a model as a program of torch.export (.pt2), and prove that file against the model before it gets its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from spgsurgeon.errors import SurgeonError, VerificationError
from spgsurgeon.exporting.agreement import Batch, Readout, reason
from spgsurgeon.exporting.layout import PROGRAM
from spgsurgeon.exporting.silence import silenced
from spgsurgeon.exporting.subject import HALF_TOLERANCE, TOLERANCE, Comparison, Outputs, Subject, subject_of
from spgsurgeon.models import GraphInputs
from spgsurgeon.replicas import outputs_of
from spgsurgeon.runtime import as_json

METADATA = "metadata.json"
"""What a .pt2 file says of itself, among its extra files."""
_OF_THIS_MACHINE = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn")


def export_program(
    model: nn.Module,
    path: Path,
    inputs: GraphInputs,
    *,
    half: bool = False,
    metadata: Mapping[str, str] | None = None,
    readout: Readout | None = None,
    tolerance: float | None = None,
    seed: int = 0,
) -> Comparison:
    """Write `model` to `path` as a program that `torch.export.load` reads, with the `inputs`; see `export_onnx`.

    The file, read back, is compared with the model in the same way, and `metadata` lies in it as `metadata.json`.
    Its module takes the inputs in their order, and returns logits.
    """
    with tempfile.TemporaryDirectory(prefix=".pt2-", dir=path.parent) as folder, silenced(), torch.no_grad():
        subject = subject_of(model, inputs, "main", readout)
        draft = Path(folder) / PROGRAM
        _write(subject.drafted(half, seed), subject, draft, dict(metadata or {}))
        try:
            program = torch.export.load(draft).module()
        except Exception as error:
            raise VerificationError(f"torch can't read the exported program back: {reason(error)}") from error
        allowed = tolerance or (HALF_TOLERANCE if half else TOLERANCE)
        agreements = subject.compare(partial(_run, program), "the exported program", allowed, seed)
        os.replace(draft, path)
    return Comparison(inputs.compared, agreements, half)


def _write(drafted: Outputs, subject: Subject, draft: Path, metadata: dict[str, str]) -> None:
    example, opened = subject.inputs.example(), subject.inputs.open
    shapes = {"inputs": tuple(dict.fromkeys(opened[name], torch.export.Dim.DYNAMIC) for name in example)}
    try:
        program = torch.export.export(drafted, tuple(example.values()), dynamic_shapes=shapes)
        _forget_this_machine(program.graph_module)
        torch.export.save(program, draft, extra_files={METADATA: as_json(metadata, indent=2)})
    except Exception as error:
        raise SurgeonError(
            f"torch could not export the model: {reason(error)}",
            hint="the forward must be free of branches on tensor values; export safetensors instead",
        ) from error


def _forget_this_machine(graph_module: Any) -> None:
    """Remove what would publish paths of this machine and names of our own classes."""
    for part in graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            for key in _OF_THIS_MACHINE:
                node.meta.pop(key, None)


def _run(program: nn.Module, batch: Batch) -> Sequence[torch.Tensor]:
    return outputs_of(program(*batch.values()))
