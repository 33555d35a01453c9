"""The calls that torch.save writes for a tensor, read as where the tensor lies instead of being made."""

from __future__ import annotations

from typing import Any

from spgsurgeon.checkpoint.containers.torch_files import Storage, TorchFile
from spgsurgeon.checkpoint.pickle.allowlist import DTYPES, FROM_TYPE, REBUILDERS, UNREADABLE, WRAPPERS
from spgsurgeon.checkpoint.pickle.nodes import Call, Global, Persistent
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES, TensorSpec, is_possible, row_major, span_of

_MOST_WRAPPERS = 8  # around one tensor; torch writes two at most


def tensor_spec(file: TorchFile, key: str, value: object) -> TensorSpec | None:
    """Return where the tensor `value` (an entry of the file's tree) lies; None if it is not a tensor.

    Raises UnreadableError for tensors without dense values of their own (sparse, conjugated, on the meta device),
    MalformedError for those that reach beyond their storage.
    """
    call = _unwrapped(value)
    if call is None:
        return None
    if call.name in UNREADABLE:
        raise _unreadable(key, UNREADABLE[call.name])
    if call.name not in REBUILDERS:
        return None
    return _dense(file, key, call)


def _unwrapped(value: object) -> Call | None:
    """Return the call that makes the tensor, from inside parameters and tensors with attributes."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(value, Call) or not isinstance(value.args, tuple):
            break
        if value.name in WRAPPERS and value.args:
            value = value.args[0]
        elif value.name == FROM_TYPE and len(value.args) > 2 and isinstance(value.args[0], Global):
            value = Call(value.args[0].name, value.args[2])
        else:
            return value
    return None


def _dense(file: TorchFile, key: str, call: Call) -> TensorSpec:
    match call.args:
        case (Persistent() as node, int() as start, tuple() as shape, tuple() as stride, *rest):
            storage = file.storages[node]
        case _:
            raise _damaged(key, "is described in an unknown manner")
    if not all(type(number) is int and number >= 0 for number in (start, *shape, *stride)):
        raise _damaged(key, "has a negative size or place")
    if len(shape) != len(stride) or not is_possible(shape):
        raise _damaged(key, "has an impossible shape")
    dtype, metadata = storage.dtype, rest[2:3]
    if call.name == "torch._utils._rebuild_tensor_v3":
        dtype, metadata = _dtype(key, metadata), rest[3:4]
    if metadata and metadata[0]:
        raise _unreadable(key, "a conjugated or negated view")
    return _place(file, key, storage, TensorSpec(dtype, shape, file.path, start, stride))


def _place(file: TorchFile, key: str, storage: Storage, view: TensorSpec) -> TensorSpec:
    """Return the view, whose offset counts elements of the storage, with its place in the file."""
    assert view.stride is not None
    size, span = DTYPE_SIZES[view.dtype], span_of(view.shape, view.stride)
    if span and (view.offset + span) * size > storage.numel * DTYPE_SIZES[storage.dtype]:
        raise _damaged(key, "reaches beyond its storage")
    steps = zip(view.shape, view.stride, row_major(view.shape), strict=True)
    contiguous = not span or all(size == 1 or step == dense for size, step, dense in steps)
    offset = storage.offset + view.offset * size if span else storage.offset
    return TensorSpec(view.dtype, view.shape, file.path, offset, None if contiguous else view.stride)


def _dtype(key: str, given: list[Any]) -> str:
    match given:
        case [Global(name=name)] if name in DTYPES:
            return DTYPES[name]
    raise _damaged(key, "has no known dtype")


def _unreadable(key: str, what: str) -> UnreadableError:
    return UnreadableError(
        f"can't be used: tensor {key!r:.120} is {what}; only dense tensors are read",
        hint="save it as a dense tensor, with to_dense() or clone()",
        code="not-dense",
    )


def _damaged(key: str, reason: str) -> MalformedError:
    return MalformedError(f"tensor {key!r:.120} {reason}")
