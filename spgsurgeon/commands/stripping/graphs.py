"""Files with a graph: what was asked of them, and how they are written and proven."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from spgsurgeon.commands.stripping.written import Patient
from spgsurgeon.errors import UsageError
from spgsurgeon.exporting import GRAPHS, Comparison, OnnxReport, export_onnx, export_program, file_metadata
from spgsurgeon.models import BATCH, Preprocessing, graph_inputs_of

_CHANNELS = 3


@dataclass(frozen=True)
class GraphOptions:
    """What was asked of the files with a graph; None is left to the exporter, to the model, and is `main`."""

    opset: int | None
    image_size: tuple[int, int] | None
    outputs: str | None
    half: bool

    def refuse_idle(self, formats: Sequence[str]) -> None:
        """Raise UsageError for an option that none of the formats has a use for."""
        graphs = {"--image-size": self.image_size, "--half": self.half or None}
        for name, value in {"--opset": self.opset, "--onnx-outputs": self.outputs, **graphs}.items():
            users = GRAPHS if name in graphs else ("onnx",)
            if value is not None and not set(formats) & set(users):
                raise UsageError(f"{name} is for --export {' and --export '.join(users)}")


def write_graph(kind: str, path: Path, module: nn.Module, patient: Patient, options: GraphOptions) -> dict[str, Any]:
    """Write a file with a graph; return its report, as writing proves it.

    The content hash is that of the weights it was made from: it need not hold them as they are. The bytes of the file
    have a hash as well.
    """
    size, task = _image_size(patient, options), patient.task
    inputs = (task.graph_inputs if task else graph_inputs_of)(module, size)
    given: dict[str, Any] = {"half": options.half, "metadata": _metadata(patient, size)}
    given["readout"] = task.readout if task else None
    report: Comparison = (
        export_onnx(module, path, inputs, outputs=options.outputs or "main", opset=options.opset, **given)
        if kind == "onnx"
        else export_program(module, path, inputs, **given)
    )
    return {
        "content_hash": patient.content_hash,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "largest_difference": report.largest_difference,
        "logits_scale": report.logits_scale,
        **({"opset": report.opset} if isinstance(report, OnnxReport) else {}),
        "half": report.half,
        "graph_inputs": list(inputs.open),
        "batch_sizes": [sizes[BATCH] for sizes in report.sizes],
        "sizes": [dict(sizes) for sizes in report.sizes],
        **({"image_size": list(size[1:])} if size else {}),
        "graph_outputs": {name: asdict(agreement) for name, agreement in report.outputs.items()},
        "proof": {f"{kind}_agrees{'_in_half_precision' if report.half else ''}": True},
    }


def _image_size(patient: Patient, options: GraphOptions) -> tuple[int, int, int] | None:
    """Return (channels, height, width) of the graph's images: those asked for, or the model's own; None for others."""
    own = patient.preprocessing.input_size if isinstance(patient.preprocessing, Preprocessing) else None
    if options.image_size is None:
        return own
    return own[0] if own else _CHANNELS, *options.image_size


def _metadata(patient: Patient, size: tuple[int, int, int] | None) -> dict[str, str]:
    identity, preprocessing = patient.identity, patient.preprocessing
    if size is not None and isinstance(preprocessing, Preprocessing):
        preprocessing = replace(preprocessing, input_size=size)
    license = patient.config.get("pretrained_cfg", {}).get("license")
    hash_, labels = patient.content_hash, patient.labels
    return file_metadata(identity.name, hash_, patient.config, preprocessing, labels, license)
