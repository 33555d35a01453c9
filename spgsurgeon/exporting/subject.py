"""What is exported: a float32 copy of the model on the CPU, in eval mode, whose inputs and outputs have names.

Shapes: N batch, K classes; `images` is [N, channels, height, width], an output [N, K, ...].
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.exporting.agreement import Agreement, Batch, compare_all, reason
from spgsurgeon.models import IMAGES
from spgsurgeon.replicas import outputs_of

OUTPUTS = ("main", "all")
BATCH_SIZES = (1, 2, 7)
BATCH_SIZES_OF_MAPS = (1, 2, 3)  # an image has a logit for each class and pixel
TOLERANCE, HALF_TOLERANCE = 1e-4, 1e-2
"""How far a logit may be off, as a share of the largest: of rounding in float32, and in half precision."""


class Outputs(nn.Module):
    """The model reduced to its first `count` outputs (None: all), that of inference first.

    `half` computes in half precision, between inputs and outputs of float32.
    """

    def __init__(self, model: nn.Module, count: int | None, *, half: bool = False) -> None:
        super().__init__()
        self.model = model.half() if half else model
        self.count, self.half_precision = count, half

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return one tensor, or several as a tuple; inputs are in the order of their names."""
        if self.half_precision:
            inputs = tuple(value.half() if value.is_floating_point() else value for value in inputs)
        found = outputs_of(self.model(*inputs))[: self.count]
        if self.half_precision:
            found = tuple(value.float() for value in found)
        return found if len(found) > 1 else found[0]


@dataclass(frozen=True)
class Subject:
    """A model to export: what its file is compared with, the names of its outputs, and the batches for comparing."""

    reference: Outputs
    names: tuple[str, ...]
    input_size: tuple[int, int, int]
    batch_sizes: tuple[int, ...]

    def drafted(self, half: bool, seed: int) -> Outputs:
        """Return what goes into the file.

        Raises VerificationError if the model in half precision is another: here, as a runtime on a CPU may compute in
        float32 all the same, and never overflow.
        """
        if not half:
            return self.reference
        drafted = Outputs(copy.deepcopy(self.reference.model), self.reference.count, half=True).eval()

        def run(batch: Batch) -> Sequence[Tensor]:
            return outputs_of(drafted(*batch.values()))

        self.compare(run, "torch in half precision", HALF_TOLERANCE, seed)
        return drafted

    def compare(
        self, run: Callable[[Batch], Sequence[Tensor]], runner: str, tolerance: float, seed: int
    ) -> dict[str, Agreement]:
        """Return how well what `run` gives agrees with the model, by output; see `compare_all`."""
        return compare_all(self.reference, run, runner, self.names, self._batches(seed), tolerance)

    def example(self) -> Batch:
        """Return a batch to trace: not of 1, which torch.export would take for a constant."""
        return {IMAGES: torch.zeros(2, *self.input_size)}

    def _batches(self, seed: int) -> list[Batch]:
        """Return one random batch of each size, which the export has not seen."""
        generator = torch.Generator().manual_seed(seed)
        return [{IMAGES: torch.randn(size, *self.input_size, generator=generator)} for size in self.batch_sizes]


@dataclass(frozen=True)
class Comparison:
    """How an exported file compares with its model, in absolute float32 logits, over all batch sizes together.

    `outputs` says it of each output of the graph, by name; the properties of all of them.
    """

    batch_sizes: tuple[int, ...]
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


def subject_of(
    model: nn.Module, input_size: tuple[int, int, int], outputs: str, batch_sizes: Sequence[int] | None
) -> Subject:
    """Return what is exported of `model`, which stays as it is; see `export_onnx` for the arguments.

    Raises SurgeonError if it fails on a batch of this size or gives no logits, UsageError for outputs it has not.
    """
    reference = Outputs(copy.deepcopy(model).to("cpu", torch.float32), 1 if outputs == "main" else None).eval()
    shapes = _output_shapes(reference, input_size)
    sizes = batch_sizes or (BATCH_SIZES_OF_MAPS if len(shapes[0]) > 2 else BATCH_SIZES)
    return Subject(reference, _output_names(shapes, outputs), input_size, tuple(sizes))


def _output_shapes(reference: Outputs, input_size: tuple[int, int, int]) -> list[torch.Size]:
    """Return the shapes of the model's outputs for one image. Raises SurgeonError if they are not logits."""
    try:
        shapes = [output.shape for output in outputs_of(reference(torch.zeros(1, *input_size)))]
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


def _output_names(shapes: Sequence[torch.Size], outputs: str) -> tuple[str, ...]:
    if outputs == "all" and len(shapes) == 1:
        raise UsageError("all outputs were asked for, but in eval mode the model has one only", hint="leave it at main")
    return ("logits", *(f"auxiliary{number or ''}" for number in range(len(shapes) - 1)))
