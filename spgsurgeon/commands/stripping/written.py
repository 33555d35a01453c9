"""A base whose replicas were taken down: its files, and what they are proven by."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
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
from spgsurgeon.loading import OpenedModel, state_of
from spgsurgeon.models import (
    Identity,
    SamplePreprocessing,
    load_model,
    run_in_eval,
)
from spgsurgeon.replicas import outputs_of
from spgsurgeon.surgery import Inputs, Layout, prove_file, prove_strip
from spgsurgeon.tasks import Task


@dataclass(frozen=True)
class Patient:
    """What is known of a base whose replicas were taken down, apart from its weights.

    `written` is the layout of its files, which is not that of the module if the library leaves out shared weights.
    `manifest` is None if nothing says what was grafted, `task` if the package has none for it, and `preprocessing` if
    what says it does not lie beside the weights.
    """

    identity: Identity
    task: Task | None
    manifest: GraftManifest | None
    replicas: str | None
    config: dict[str, Any]
    labels: list[str] | None
    preprocessing: SamplePreprocessing | None
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


def preprocessing_of(opened: OpenedModel) -> SamplePreprocessing | None:
    """Return how the model wants its samples; None if no file beside its weights says it."""
    with suppress(UsageError):
        return opened.preprocessing
    return None


def write_weights(kind: str, path: Path, module: nn.Module, patient: Patient) -> None:
    """Write a file of weights that carries their config.json; it is proven when it is read back."""
    (write_safetensors if kind == "safetensors" else write_torch)(path, state_of(module), patient.config)


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
