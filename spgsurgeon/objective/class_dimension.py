"""Which dimension of logits holds the classes: decided by shapes alone, and refused where two readings fit them.

Shapes: rows = (T+1)*N; `units` stands for any number of dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

from spgsurgeon.errors import UsageError

Shape = Sequence[int]


def find_class_dim(logits: Shape, target: Shape, *, soft: bool, class_dim: int | None = None) -> int:
    """Return the dimension of `logits` that holds the classes, counted from the front.

    `target` is the shape of class indices, [N, units], or of `soft` labels, which have their classes in the same
    dimension as the logits, or in their last one if they have fewer dimensions. Logits may have more units at their
    end than the target.

    Without `class_dim` it is 1, as torch's own losses have it, unless the shapes fit classes in the last dimension
    too, as [rows, L, C] with L == C does. One class index a sample, [N], says nothing about the units of logits
    [rows, C, K], which are read as K outputs.
    Raises UsageError for a `class_dim` that the logits lack, for shapes that don't fit, and for those that fit twice.
    """
    if len(logits) < 2:
        raise UsageError(f"logits need rows and classes, [rows, classes, ...] (got {list(logits)})", code="no-classes")
    last = len(logits) - 1
    if class_dim is None:
        readings = [1] if last == 1 or (not soft and len(target) == 1) else [1, last]
    else:
        readings = [_counted_from_the_front(class_dim, logits)]
    fitting = [dim for dim in readings if _fits(logits, target, dim, soft)]
    if not fitting or (class_dim is None and fitting == [last] != [1]):
        raise _unfit(logits, target, soft, 1 if class_dim is None else readings[0], fitting)
    if len(fitting) > 1:
        raise UsageError(
            f"logits of shape {list(logits)} with a target of shape {list(target)} can be read two ways: the classes "
            f"are in dimension 1 or in dimension {last}",
            hint=f"say which: class_dim=1 for [rows, C, ...], class_dim={last} for [rows, ..., C], as tokens have it",
            code="ambiguous-class-dim",
        )
    if logits[fitting[0]] < 2:
        raise UsageError(
            f"dimension {fitting[0]} of logits of shape {list(logits)} holds the classes, and there must be two or "
            f"more (got {logits[fitting[0]]})",
            hint="one score a choice becomes [rows, choices] by `fold_choices`; a binary model needs two outputs",
            code="no-classes",
        )
    return fitting[0]


def soft_class_dim(target: Shape, class_dim: int) -> int:
    """Return the dimension of soft labels that holds their classes."""
    return min(class_dim, len(target) - 1)


def _counted_from_the_front(class_dim: int, logits: Shape) -> int:
    dims = range(len(logits))
    if class_dim in range(-len(logits), len(logits)) and dims[class_dim] != 0:
        return dims[class_dim]
    raise UsageError(
        f"class_dim must be 1 to {len(logits) - 1}, or -1 for the last, of logits of shape {list(logits)} "
        f"(got {class_dim})",
        code="no-such-class-dim",
    )


def _fits(logits: Shape, target: Shape, class_dim: int, soft: bool) -> bool:
    """Return whether the target says something of the first units of the logits, all rows apart."""
    if len(target) < (2 if soft else 1):
        return False
    units, said = _without(logits, class_dim), list(target)
    if soft and said.pop(soft_class_dim(target, class_dim)) != logits[class_dim]:
        return False
    return said[1:] == units[1 : len(said)]


def _without(shape: Shape, dim: int) -> list[int]:
    return [*shape[:dim], *shape[dim + 1 :]]


def _unfit(logits: Shape, target: Shape, soft: bool, class_dim: int, fitting: Shape) -> UsageError:
    kind, expected = "class indices", ["N", *_without(logits, class_dim)[1:]]
    if soft:
        kind, expected = "soft labels", ["N", *logits[1:]]
    hint = None
    if fitting:
        hint = f"if the classes are in dimension {fitting[0]} of the logits, pass class_dim={fitting[0]}"
    elif not soft and list(target[1:]) == list(logits[1:]):
        hint = "one number a class is multi-label or one-hot: give one class index a unit"
    return UsageError(
        f"{kind} of shape {list(target)} don't fit logits of shape {list(logits)} with the classes in dimension "
        f"{class_dim}: expected [{', '.join(map(str, expected))}]",
        hint=hint,
        code="unfit-target",
    )
