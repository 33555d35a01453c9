"""A CUDA device that is not there: its tensors have a place, a shape and a type, and no numbers (torch's fake tensors).

Operators check that what they get lies in one place. Gradients are zeros: the backward pass asks for a real device.
"""

from __future__ import annotations

import traceback
from contextlib import ExitStack, nullcontext
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from spgsurgeon.runtime.distributed import Processes

CUDA = torch.device("cuda", 0)
PROCESSES = Processes(0, 1, CUDA)
needs_cuda_build = pytest.mark.skipif(not torch.backends.cuda.is_built(), reason="needs a torch built for CUDA")


class _Fakes(FakeTensorMode):
    def __deepcopy__(self, memo: Any) -> _Fakes:  # a moving average's tensors stay with the model's
        return self


class _Watch(TorchDispatchMode):
    """Notes where the process would wait for the device. Numbers that are read are ones."""

    def __init__(self, waits: list[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), options: Any = None) -> Any:
        options = options or {}
        name = function._schema.name.removeprefix("aten::")
        given = [leaf for leaf in tree_leaves((arguments, options)) if isinstance(leaf, Tensor)]
        if name == "_local_scalar_dense":
            if given[0].is_cuda:
                self._note(name)
            return _one(given[0].dtype)
        if name == "_pin_memory":  # of this and the fused optimizers torch has no fakes
            return given[0]
        if name.startswith("_fused_"):
            assert {tensor.device for tensor in given} == {CUDA}, name
            return None
        assert name != "nll_loss2d_forward" or arguments[3] == 0, "CUDA sums it over a map in any order"
        result = function(*arguments, **options)
        places = {tensor.device.type for tensor in [*given, *tree_leaves(result)] if isinstance(tensor, Tensor)}
        at_once = options.get("non_blocking", arguments[2] if name == "copy_" and len(arguments) > 2 else False)
        if name in ("copy_", "_to_copy") and len(places) > 1 and not at_once:
            self._note(name)
        return result

    def _note(self, name: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if "/spgsurgeon/" in frame.filename]
        self._waits.append(f"{name}: {frames[-1].line}" if frames else name)


def _one(dtype: torch.dtype) -> bool | int | float:
    return 1.0 if dtype.is_floating_point else True if dtype == torch.bool else 1


class PretendedCUDA:
    """Inside its block there is one; `waits` has what made the process wait for it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.waits: list[str] = []
        self._fakes, self._block = _Fakes(allow_non_fake_inputs=True), ExitStack()
        self._modules: list[nn.Module] = []
        for name in ("Stream", "Event", "current_device", "current_stream", "is_bf16_supported", "manual_seed"):
            monkeypatch.setattr(torch.cuda, name, MagicMock())
        for name in ("stream", "device"):
            monkeypatch.setattr(torch.cuda, name, lambda _: nullcontext())
        monkeypatch.setattr(torch, "Generator", lambda device=None, made=torch.Generator: made())
        monkeypatch.setattr(torch.cuda.amp.common, "amp_definitely_not_available", lambda: False)
        monkeypatch.setattr(Tensor, "record_stream", lambda *_: None)
        monkeypatch.setattr(Tensor, "backward", lambda _: self._give_gradients())

    def __enter__(self) -> PretendedCUDA:
        self._block.enter_context(self._fakes)
        self._block.enter_context(_Watch(self.waits))
        return self

    def __exit__(self, *_: object) -> None:
        self._block.close()

    def place(self, module: nn.Module) -> Any:
        """Return a module whose tensors lie there; outside of the block."""
        for part in module.modules():
            for name, weight in part.named_parameters(recurse=False):
                part.register_parameter(name, nn.Parameter(self._moved(weight), weight.requires_grad))
            for name, buffer in part.named_buffers(recurse=False):
                part._buffers[name] = self._moved(buffer)
        module.to = lambda device: module  # type: ignore[method-assign]
        self._modules.append(module)
        return module

    def _moved(self, tensor: Tensor) -> Tensor:
        fake = self._fakes.from_tensor(tensor.detach())
        with self._fakes:
            return fake.to(CUDA)

    def _give_gradients(self) -> None:
        for module in self._modules:
            for weight in module.parameters():
                weight.grad = torch.zeros_like(weight) if weight.grad is None else weight.grad
