"""A base whose replicas were taken down: its files, and what they are proven by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from spgsurgeon.checkpoint import (
    GraftManifest,
    read_checkpoint,
    same_bits,
    write_safetensors,
    write_torch,
)
from spgsurgeon.errors import UsageError, VerificationError
from spgsurgeon.exporting import (
    GRAPHS,
    Comparison,
    OnnxReport,
    export_onnx,
    export_program,
    file_metadata,
)
from spgsurgeon.loading import state_of
from spgsurgeon.models import (
    Identity,
    Preprocessing,
    load_model,
    run_in_eval,
)
from spgsurgeon.replicas import outputs_of
from spgsurgeon.surgery import Inputs, Layout, prove_file, prove_strip
from spgsurgeon.tasks import Task


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


@dataclass(frozen=True)
class Patient:
    """What is known of a base whose replicas were taken down, apart from its weights.

    `written` is the layout of its files, which is not that of the module if the library leaves out shared weights.
    `task` is None if the package has none for it.
    """

    identity: Identity
    task: Task | None
    manifest: GraftManifest
    replicas: str | None
    config: dict[str, Any]
    labels: list[str] | None
    preprocessing: Preprocessing | None
    companions: dict[str, bytes]
    notes: list[str]
    content_hash: str
    grafted_outputs: tuple[Tensor, ...]
    inputs: Inputs
    layout: Layout
    written: Layout

    @property
    def of_transformers(self) -> bool:
        """Whether it is a model of transformers."""
        return self.identity.library == "transformers"


def write_format(
    kind: str, path: Path, module: nn.Module, patient: Patient, options: GraphOptions
) -> dict[str, Any] | None:
    """Write one format; return its report if writing proved it, as it does for graphs.

    The content hash of a graph is that of the weights it was made from: it need not hold them as they are. The bytes of
    its file have a hash as well.
    """
    if kind not in GRAPHS:
        (write_safetensors if kind == "safetensors" else write_torch)(path, state_of(module))
        return None
    if patient.preprocessing is None:
        raise UsageError(
            f"{kind} files are written of timm's and torchvision's models only, and this is {patient.identity.name}",
            hint="strip to a folder; optimum-cli exports what from_pretrained reads",
        )
    channels, height, width = patient.preprocessing.input_size
    size = (channels, *(options.image_size or (height, width)))
    said = _file_metadata(patient, patient.preprocessing, (size[1], size[2]))
    report: Comparison = (
        export_onnx(
            module, path, size, outputs=options.outputs or "main", opset=options.opset, half=options.half, metadata=said
        )
        if kind == "onnx"
        else export_program(module, path, size, half=options.half, metadata=said)
    )
    return {
        "content_hash": patient.content_hash,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "largest_difference": report.largest_difference,
        "logits_scale": report.logits_scale,
        **({"opset": report.opset} if isinstance(report, OnnxReport) else {}),
        "half": report.half,
        "batch_sizes": list(report.batch_sizes),
        "image_size": list(size[1:]),
        "graph_outputs": {name: asdict(agreement) for name, agreement in report.outputs.items()},
        "proof": {f"{kind}_agrees{'_in_half_precision' if report.half else ''}": True},
    }


def _file_metadata(patient: Patient, preprocessing: Preprocessing, image_size: tuple[int, int]) -> dict[str, str]:
    identity, license = patient.identity, patient.config.get("pretrained_cfg", {}).get("license")
    name = f"{identity.library}/{identity.architecture}"
    return file_metadata(name, patient.content_hash, preprocessing, image_size, patient.labels, license)


def prove_written(path: Path, patient: Patient) -> dict[str, Any]:
    """Read a written file back and prove it; return its report."""
    content_hash = prove_file(path, patient.content_hash, patient.written)
    stripped = _read_back(path, patient)
    proof = prove_strip(patient.grafted_outputs, stripped, patient.layout, patient.inputs)
    outputs = zip(outputs_of(run_in_eval(stripped, patient.inputs)), patient.grafted_outputs, strict=True)
    difference = max((a - b).abs().max().item() for a, b in outputs)
    return {
        "content_hash": content_hash,
        "largest_difference": difference,
        "proof": proof | {"file_read_back_equal": True},
    }


def _read_back(path: Path, patient: Patient) -> nn.Module:
    """Return the architecture, built anew, with the weights of the written file."""
    return load_model(patient.identity, read_checkpoint(path).tensors)


def prove_from_pretrained(folder: Path, patient: Patient) -> dict[str, bool]:
    """Prove that transformers itself reads the written folder to the same outputs, bit for bit."""
    from spgsurgeon.models import from_folder

    dtype = patient.config.get("dtype") or patient.config.get("torch_dtype")
    outputs = outputs_of(run_in_eval(from_folder(patient.identity, folder, dtype), patient.inputs))
    if not all(map(same_bits, outputs, patient.grafted_outputs)):
        raise VerificationError("what from_pretrained makes of the written folder gives other outputs")
    return {"from_pretrained_equal": True}
