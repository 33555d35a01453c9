"""What a model gives: logits alone, or several outputs (auxiliary heads) as a tuple or by name.

Shapes: N images, C classes; logits are [N, C], or [N, C, H, W] for a prediction per pixel. K outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.objective import named_logits

_LOGITS = (("logits",), ("start_logits", "end_logits"))


def outputs_of(output: Any) -> tuple[Tensor, ...]:
    """Return the tensors that a model's `output` consists of, that of inference first.

    Torchvision's segmentation models give a mapping, its entry `out` before `aux`. Of the mappings of transformers only
    logits are read: [N, ..., C], or [N, L] twice, for where an answer starts and where it ends. Raises TypeError for
    anything that is not made of tensors.
    """
    parts: list[Any]
    if isinstance(output, Mapping) and (named := logits_names(output)):
        parts = [output[name] for name in named]
    elif isinstance(output, Mapping):
        parts = [output[name] for name in sorted(output, key=lambda name: name != "out")]
    elif (one := named_logits(output)) is not None:
        parts = [one]
    else:
        parts = list(output) if isinstance(output, (tuple, list)) else [output]
    if not parts or any(not isinstance(part, Tensor) for part in parts):
        raise TypeError(f"a model gives tensors, not {describe_output(output)}")
    return tuple(parts)


def logits_names(output: Any) -> tuple[str, ...]:
    """Return the names of logits in what a model of transformers gives; its further outputs are not predictions.

    There are none in outputs of others.
    """
    if not isinstance(output, Mapping):
        return ()
    return next((names for names in _LOGITS if all(name in output for name in names)), ())


def main_output(output: Any) -> Tensor:
    """Return the logits that inference goes by, the first of `outputs_of(output)`."""
    return outputs_of(output)[0]


def joined(output: Any) -> Tensor:
    """Return one tensor of logits: with K > 1 outputs, they are stacked on a new last dimension."""
    parts = outputs_of(output)
    return parts[0] if len(parts) == 1 else torch.stack(parts, dim=-1)


def stacked(output: Any) -> Tensor | tuple[Tensor, ...]:
    """Return one tensor as `joined` does; outputs of different shapes, as of heads with other classes, as they are."""
    parts = outputs_of(output)
    return joined(parts) if len({part.shape for part in parts}) == 1 else parts


def describe_output(output: object) -> str:
    """Return what an output is, for messages."""
    if isinstance(output, Mapping):
        return f"a {type(output).__name__} of {', '.join(map(str, output))}"
    if isinstance(output, (tuple, list)):
        return f"a {type(output).__name__} of {', '.join(map(describe_output, output))}"
    return f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
