"""What a module may be wrapped in, which a graft goes inside of."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from spgsurgeon.errors import UsageError


def refuse_wrapped(model: nn.Module) -> None:
    """Raise UsageError for a module that is compiled, scripted or spread over devices already.

    What was compiled is not looked at for hooks that come later, so its episodes would be lost in silence.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "a scripted module takes no hooks, so it can't be grafted",
            hint="graft the module that it was made from",
            code="scripted",
        )
    if isinstance(model, DataParallel | DistributedDataParallel):
        name = type(model).__name__
        raise UsageError(
            f"the model is wrapped in {name}",
            hint=f"graft what is inside, and wrap that: {name}(spgsurgeon.graft(model.module))",
            code="wrapped",
        )
    if any(part._compiled_call_impl is not None for part in model.modules()) or hasattr(model, "_orig_mod"):
        raise UsageError(
            "the model is compiled, and what is compiled does not see what is grafted later",
            hint="graft it first: torch.compile(spgsurgeon.graft(model))",
            code="compiled",
        )


def unwrapped(model: nn.Module) -> nn.Module:
    """Return what is inside of a compiled module or one that is spread over devices."""
    inside = getattr(model, "_orig_mod", None)
    if inside is None and isinstance(model, DataParallel | DistributedDataParallel):
        inside = model.module
    return model if inside is None else unwrapped(inside)
