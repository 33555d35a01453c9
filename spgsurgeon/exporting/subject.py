"""What is exported: a float32 copy of the model on the CPU, in eval mode, whose inputs and outputs have names.

Shapes: N batch, K classes; an output is [N, K, ...], or [N, ..., K].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.exporting.agreement import Agreement, Batch, Readout, compare_all, reason
from spgsurgeon.models import GraphInputs, Sizes, call
from spgsurgeon.replicas import logits_names, outputs_of

OUTPUTS = ("main", "all")
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
"""How far a logit may be off, as a share of the largest: of rounding in float32, and in half precision."""


class Outputs(nn.Module):
    """The model as a function of its inputs in the order of `names`, with its first `count` outputs (None: all).

    `half` computes in half precision, between inputs and outputs of float32.
    """

    def __init__(self, model: nn.Module, names: Sequence[str], count: int | None, *, half: bool = False) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.names, self.count, self.half_precision = tuple(names), count, half

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return one tensor, or several as a tuple."""
        if self.half_precision:
            inputs = tuple(value.half() if value.is_floating_point() else value for value in inputs)
        found = outputs_of(call(self.model, dict(zip(self.names, inputs, strict=True))))[: self.count]
        if self.half_precision:
            found = tuple(value.float() for value in found)
        return found if len(found) > 1 else found[0]


@dataclass(frozen=True)
class Subject:
    """A model to export: what its file is compared with, the names of its outputs, and what goes in."""

    reference: Outputs
    names: tuple[str, ...]
    inputs: GraphInputs
    readout: Readout

    def drafted(self, half: bool, seed: int) -> Outputs:
        """Return what goes into the file.

        Raises VerificationError if the model in half precision is another: here, as a runtime on a CPU may compute in
        float32 all the same, and never overflow.
        """
        if not half:
            return self.reference
        copied = copy.deepcopy(self.reference.model)
        drafted = Outputs(copied, self.reference.names, self.reference.count, half=True).eval()

        def run(batch: Batch) -> Sequence[Tensor]:
            return outputs_of(drafted(*batch.values()))

        self.compare(run, "torch in half precision", HALF_TOLERANCE, seed)
        return drafted

    def compare(
        self, run: Callable[[Batch], Sequence[Tensor]], runner: str, tolerance: float, seed: int
    ) -> dict[str, Agreement]:
        """Return how well what `run` gives agrees with the model, by output; see `compare_all`."""
        batches = self.inputs.batches(seed)
        return compare_all(self.reference, run, runner, self.names, batches, tolerance, self.readout)


@dataclass(frozen=True)
class Comparison:
    """How an exported file compares with its model, in absolute float32 logits, over all `sizes` of inputs together.

    `outputs` says it of each output of the graph, by name; the properties of all of them.
    """

    sizes: Sequence[Sizes]
    outputs: dict[str, Agreement]
    half: bool = False
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


def check_outputs(outputs: str) -> None:
    """Raise UsageError for what is not one of `OUTPUTS`."""
    if outputs not in OUTPUTS:
        raise UsageError(f"the outputs of a graph are {' or '.join(OUTPUTS)}, not {outputs!r}")


def subject_of(model: nn.Module, inputs: GraphInputs, outputs: str, readout: Readout | None) -> Subject:
    """Return what is exported of `model`, which stays as it is; see `export_onnx` for the arguments.

    Raises SurgeonError if it fails on such inputs or gives no logits, UsageError for outputs it has not.
    """
    copied = copy.deepcopy(model).to("cpu", torch.float32)
    found = _tried(Outputs(copied, tuple(inputs.open), None).eval(), inputs)
    names = _names(found, outputs)
    reference = Outputs(copied, tuple(inputs.open), len(names)).eval()
    return Subject(reference, names, inputs, readout or (lambda logits: logits))


def _tried(whole: Outputs, inputs: GraphInputs) -> Any:
    """Return what the model itself gives. Raises SurgeonError if that is not logits."""
    example = inputs.example()
    try:
        found = call(whole.model, example)
        parts = outputs_of(found)
    except Exception as error:  # a stranger's model
        shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in example.items())
        raise SurgeonError(f"the model fails on {shapes}: {reason(error)}", hint="is this what it takes?") from error
    if flat := [part for part in parts if part.dim() < 2]:
        raise SurgeonError(
            f"the model returns a tensor of {flat[0].dim()} dimensions, not logits of shape [N, K, ...]",
            hint="export safetensors instead",
        )
    return found


def _names(found: Any, outputs: str) -> tuple[str, ...]:
    """Return the names of the outputs that are asked for: a model's own for logits, if it has several of these."""
    main = logits_names(found) or ("logits",)
    others = len(outputs_of(found)) - len(main)
    if outputs == "all" and not others:
        raise UsageError(
            "all outputs were asked for, but in eval mode the model has no auxiliary one", hint="leave it at main"
        )
    return (*main, *(f"auxiliary{number or ''}" for number in range(others if outputs == "all" else 0)))
