"""Readout: from logits and targets to each unit's cross entropy, whether it is predicted right, and whether it counts.

Shapes: N samples, T replicas, rows = (T+1)*N stacked step-major, C classes; `units` = [N] for images, [N, H, W] for
maps, [N, K] for images of which the model gives K outputs, [N, L] for tokens. `steps` is T+1.
A row of another kind becomes one of these: `fold_choices` for multiple choice, `shift_labels` for the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, pad

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.class_dimension import find_class_dim, soft_class_dim

_SOFT_OR_MULTI_LABEL = (
    "if the numbers of a unit are a distribution over classes (mixup, cutmix, distillation), pass soft=True; "
    "multi-label targets have no single label for an episode to go by, so give one class index a unit, or train a "
    "model of two classes for each label"
)


class Readout(NamedTuple):
    """What a batch's predictions are worth at each step; all that the objective needs to know of them."""

    cross_entropy: Tensor
    """float32 [T+1, units]: CE_t of each unit that is counted and valid at t, 0 if not counted; differentiable."""
    correct: Tensor
    """bool [T+1, units]: whether step t predicts the target, for each unit that is counted and valid at t."""
    counted: Tensor
    """bool [units]: False if the target was `ignore_index`."""
    weight: Tensor | None = None
    """float32 [units]: how much each counts, by its class; None: all the same."""
    predicted: Tensor | None = None
    """int64 [units]: the class that step 0 predicts; None if units are not read by classes."""


def read_logits(
    logits: Tensor,
    target: Tensor,
    steps: int,
    *,
    class_dim: int | None = None,
    soft: bool = False,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    class_weights: Tensor | None = None,
) -> Readout:
    """Return what logits [rows, C, ...] are worth by class indices [N, ...], or by `soft` labels [N, C, ...].

    `class_dim` says where the logits, and soft labels, have their classes: 1, as by default, or -1 for tokens
    [rows, L, C]. Without it shapes that can be read both ways are refused. Where the logits have dimensions at their
    end that the target lacks, as [rows, C, K] of a model with K outputs, the target counts for each unit along them.
    The label of soft labels is their arg-max. `class_weights` [C] say how much a unit counts by its class, or by its
    soft label on average.

    Arithmetic is float32 (float64 stays float64) whatever the autocast type; nothing in here waits for the device.
    Raises UsageError for shapes and types that don't fit, and for floating-point targets unless `soft` asks for them.
    """
    check_rows(logits.shape[0] if logits.dim() else 1, target, steps)
    check_type(target, soft, logits.shape)
    class_dim = find_class_dim(logits.shape, target.shape, soft=soft, class_dim=class_dim)
    if soft:
        dim = soft_class_dim(target.shape, class_dim)
        target = target if dim == 1 else target.movedim(dim, 1)
    outer, inner = logits.shape[1:class_dim], logits.shape[class_dim + 1 :]
    units = (*outer, *inner)
    target = _for_every_unit(target, units, given=target.dim() - (2 if soft else 1))
    label = target.argmax(1) if soft else target
    weight = None if class_weights is None else _weight_of(target, class_weights, logits.shape[class_dim], soft)
    shape = (steps, len(target), *units)
    if class_dim != 1:  # one row a unit: with units behind the classes, cross entropy would copy the logits
        logits = logits.movedim(class_dim, -1).flatten(0, -2)
        target = target.movedim(1, -1).flatten(0, -2) if soft else target.flatten()
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits if logits.dtype == torch.float64 else logits.to(torch.float32)
        ce = cross_entropy(
            logits,
            torch.cat([target] * steps),
            reduction="none",
            label_smoothing=label_smoothing,
            ignore_index=ignore_index,
        )
        chosen = logits.detach().argmax(1).view(shape)
    counted = torch.ones_like(label, dtype=torch.bool) if soft else label != ignore_index
    return Readout(ce.view(shape), chosen == label, counted, weight, chosen[0])


def _weight_of(target: Tensor, class_weights: Tensor, classes: int, soft: bool) -> Tensor:
    """Return how much each unit of a target, [N, units] or softly [N, C, units], counts."""
    if class_weights.shape != (classes,):
        raise UsageError(
            f"{classes} classes need a weight each, [{classes}] (got class_weights of shape "
            f"{list(class_weights.shape)})",
            code="unfit-class-weights",
        )
    weights = class_weights.to(target.device, torch.float32)
    return torch.tensordot(target.float(), weights, dims=([1], [0])) if soft else weights[target.clamp(min=0)]


def read_spans(
    start_logits: Tensor,
    end_logits: Tensor,
    target: Tensor,
    steps: int,
    *,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Readout:
    """Return what answers are worth that are read as a span: the unit is a question, right when both its ends are.

    Logits are [rows, L] each, one score a token; `target` is [N, 2], the positions of start and end. The cross entropy
    is the mean of both. A question with a position outside the text (L or more, as clamping leaves it) or at
    `ignore_index` is not counted.
    """
    check_rows(start_logits.shape[0], target, steps)
    if start_logits.shape != end_logits.shape or start_logits.dim() != 2 or target.shape[1:] != (2,):
        shapes = f"start {list(start_logits.shape)}, end {list(end_logits.shape)}, target {list(target.shape)}"
        raise UsageError(
            f"spans need logits [rows, L] of starts and ends and a target [N, 2] (got {shapes})", code="unfit-target"
        )
    check_type(target, soft=False, logits=start_logits.shape)
    counted = ((target != ignore_index) & (target < start_logits.shape[1])).all(1)
    starts, ends = torch.where(counted[:, None], target, ignore_index).unbind(1)
    start, end = (
        read_logits(logits, positions, steps, class_dim=1, label_smoothing=label_smoothing, ignore_index=ignore_index)
        for logits, positions in ((start_logits, starts), (end_logits, ends))
    )
    return Readout((start.cross_entropy + end.cross_entropy) / 2, start.correct & end.correct, counted)


def fold_choices(logits: Tensor, choices: int) -> Tensor:
    """Return scores [rows*K, 1], one a choice and the K of a question together, as logits [rows, K]; a view."""
    if logits.dim() != 2 or logits.shape[1] != 1 or choices < 2 or logits.shape[0] % choices:
        raise UsageError(
            f"logits of multiple choice are [questions x choices, 1], of two choices or more (got {list(logits.shape)} "
            f"for {choices} choices)",
            code="unfit-choices",
        )
    return logits.view(-1, choices)


def shift_labels(labels: Tensor, ignore_index: int = -100) -> Tensor:
    """Return the target [..., L] of a causal model from its token labels [..., L]: at each token the next one.

    The last token has none, so it is ignored. Done once, where batches are made: the logits stay whole.
    """
    return pad(labels[..., 1:], (0, 1), value=ignore_index)


def check_rows(rows: int, target: Tensor, steps: int) -> None:
    """Raise UsageError unless there is a row of each of the targets at each of the steps."""
    samples = len(target) if target.dim() else 0
    if rows != steps * samples or not target.dim():
        raise UsageError(
            f"{rows} rows of logits for {samples} targets and {steps} steps: expected {steps} x {samples}",
            hint="these are the rows of one step: put the grafted model into train mode (grafted.train()), or pass "
            "weights=() for plain cross entropy"
            if rows == samples
            else "in train mode a model with T replicas gives (T+1)*N rows; give one weight for each replica",
            code="unfit-rows",
        )


def check_type(target: Tensor, soft: bool, logits: Sequence[int]) -> None:
    """Raise UsageError unless the target holds integers, or floating-point numbers that are said to be soft labels."""
    integers = not (target.is_floating_point() or target.is_complex() or target.dtype == torch.bool)
    if soft and not target.is_floating_point():
        raise UsageError(
            f"soft=True is for soft labels of a floating-point type (got {_described(target)})",
            hint="class indices go without soft=True",
            code="not-soft-labels",
        )
    if not soft and not integers:
        raise UsageError(
            f"the target must hold class indices (got {_described(target)} for logits of shape {list(logits)}); soft "
            "labels are taken only when asked for",
            hint="give class indices as integers: target.long()" if target.dim() < 2 else _SOFT_OR_MULTI_LABEL,
            code="soft-labels-not-asked-for",
        )


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _for_every_unit(target: Tensor, units: Sequence[int], given: int) -> Tensor:
    """Return `target`, which has the first `given` of the dimensions `units` that follow N and C, over all of them."""
    missing = units[given:]
    return target.reshape(*target.shape, *[1] * len(missing)).expand(*target.shape, *missing)
