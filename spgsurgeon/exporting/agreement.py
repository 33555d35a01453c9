"""Does an exported file compute what its model computes? Law 9, on inputs that the export did not see.

Shapes: N batch, K classes; logits are [N, K, ...]: units that have a prediction of their own come behind the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from spgsurgeon.errors import VerificationError
from spgsurgeon.replicas import outputs_of

HINT = "try another opset, or export safetensors instead; in half precision activations may overflow"

Batch = Mapping[str, Tensor]
"""What goes into a graph, by the names of its inputs."""
Pair = tuple[Tensor, Tensor]
Readout = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Agreement:
    """How far apart two sets of logits are at most, the scale of the first, and how many top-1 were compared."""

    largest_difference: float
    logits_scale: float
    top1_compared: int


def compare_all(
    reference: Callable[..., Any],
    run: Callable[[Batch], Sequence[Tensor]],
    runner: str,
    names: Sequence[str],
    batches: Iterable[Batch],
    tolerance: float,
    readout: Readout,
) -> dict[str, Agreement]:
    """Return how well each output of an exported file agrees with the model, by its name, or raise VerificationError.

    `reference` takes the inputs of a batch in their order; `run` runs the file, by `runner`. Both give their outputs in
    the order of `names`, and `readout` puts the classes of these in second place.
    """
    pairs: dict[str, list[Pair]] = {name: [] for name in names}
    for batch in batches:
        expected = outputs_of(reference(*batch.values()))
        try:
            actual = run(batch)
        except Exception as error:
            size = len(next(iter(batch.values())))
            raise _miss(f"at batch size {size} {runner} fails: {reason(error)}") from error
        for name, ours, theirs in zip(names, expected, actual, strict=True):
            pairs[name].append((readout(ours), readout(theirs)))
    return {name: compare(name, of_output, tolerance) for name, of_output in pairs.items()}


def compare(name: str, pairs: Sequence[Pair], tolerance: float) -> Agreement:
    """Return how well the (expected, actual) logits of the output `name` agree, or raise VerificationError.

    Law 9: the largest difference is at most `tolerance` times the largest absolute expected logit of all pairs, and
    top-1 is identical wherever the expected margin is above that.
    """
    scale = max(expected.abs().max().item() for expected, _ in pairs)
    allowed = tolerance * scale
    largest, compared = 0.0, 0
    for expected, actual in pairs:
        place = f"at batch size {len(expected)}"
        if expected.shape != actual.shape:
            raise _miss(f"{place} the shape of {name!r} is {tuple(actual.shape)}, not {tuple(expected.shape)}")
        difference = (expected - actual).abs().max().item()
        if not difference <= allowed:  # so that a NaN is a miss
            raise _miss(f"{place} the largest difference of {name!r} is {difference:.3g}, allowed is {allowed:.3g}")
        decided = _margin(expected) > allowed
        if not torch.equal(expected.argmax(1)[decided], actual.argmax(1)[decided]):
            raise _miss(f"{place} top-1 of {name!r} differs where the margin is above {allowed:.3g}")
        largest, compared = max(largest, difference), compared + int(decided.sum())
    return Agreement(largest, scale, compared)


def reason(error: BaseException) -> str:
    """Return the first line of the error at the bottom of the chain: exporters wrap it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _margin(logits: Tensor) -> Tensor:
    """Return the gap between the two largest logits, [N, K, ...] to [N, ...]; infinite where K is 1."""
    if logits.shape[1] == 1:
        return torch.full_like(logits[:, 0], torch.inf)
    best, second = logits.topk(2, dim=1).values.unbind(dim=1)
    return best - second


def _miss(fact: str) -> VerificationError:
    return VerificationError(f"the exported graph does not agree with the model: {fact}", hint=HINT)
