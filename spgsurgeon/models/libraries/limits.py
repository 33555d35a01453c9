"""A limit on what is built for a file: a module much larger than what the file holds can't be the file's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from threading import get_ident

from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)

from spgsurgeon.errors import ArchitectureError

_TIMES = 4  # what a file holds may be built: to be tried on the meta device, then in earnest, with buffers not saved
_MORE_TENSORS, _MORE_ELEMENTS = 2000, 2**26


@contextmanager
def limited_to(tensors: Mapping[str, Tensor], name: str) -> Iterator[None]:
    """Break off the building of `name`, in this thread, once it is far larger than `tensors`, those of its file.

    Raises ArchitectureError from within the library's constructors, before what they made is filled with numbers.
    """
    elements = sum(tensor.numel() for tensor in tensors.values())
    left = {"tensors": _TIMES * len(tensors) + _MORE_TENSORS, "elements": _TIMES * elements + _MORE_ELEMENTS}
    builder = get_ident()

    def hook(module: nn.Module, key: str, tensor: Tensor | None) -> None:
        if tensor is None or get_ident() != builder:
            return
        left["tensors"] -= 1
        left["elements"] -= tensor.numel()
        if min(left.values()) < 0:
            raise ArchitectureError(
                f"the checkpoint does not fit {name}: it holds {len(tensors)} tensors with {elements} numbers, and the "
                "model, built as the file says, has far more",
                hint="is the architecture right? --arch says which; and are the arguments of its model?",
            )

    with ExitStack() as hooks:
        for register in (register_module_buffer_registration_hook, register_module_parameter_registration_hook):
            hooks.callback(register(hook).remove)
        yield
