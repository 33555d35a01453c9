"""Where replicas attach: the head that makes the logits, found without guessing at names.

Shapes: D = width of the hidden state, C = number of classes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from spgsurgeon.errors import ArchitectureError


@dataclass(frozen=True)
class Site:
    """The input of the module that makes the logits, where dropout replicas attach.

    `module` is its path in the model, `type` its class name, `width` the D of its input, `classes` its C.
    """

    module: str
    type: str
    width: int
    classes: int
    side: str = "input"

    def temporary_parameters(self, replicas: int) -> int:
        """Return T (D^2 + D) (arXiv 2506.15051, eq. 14)."""
        return replicas * (self.width**2 + self.width)

    def to_json(self) -> dict[str, Any]:
        """Return the site as plain data."""
        return asdict(self)


def find_site(model: nn.Module, example: Tensor) -> Site:
    """Return the head of `model`, an image classifier, and the width of its input.

    timm's models are asked (`get_classifier`); others are watched on one forward pass of `example` [N, channels, H, W]
    in eval mode. Raises ArchitectureError, saying what was found, where the head is not one Linear or 1x1 convolution.
    """
    if callable(getattr(model, "get_classifier", None)):
        path, head = _ask(model)
    else:
        path, head = _watch(model, example)
    if isinstance(head, nn.Linear):
        return Site(path, "Linear", head.in_features, head.out_features)
    if isinstance(head, nn.Conv2d) and head.kernel_size == (1, 1) and head.groups == 1:
        return Site(path, "Conv2d", head.in_channels, head.out_channels)
    raise ArchitectureError(
        f"the head at {path!r} is {_describe(head)}; replicas attach before a Linear or a 1x1 convolution only",
        head=_describe(head),
    )


def _ask(model: nn.Module) -> tuple[str, nn.Module]:
    head = model.get_classifier()  # type: ignore[operator]  # timm's own API, present by duck typing
    if isinstance(head, (tuple, list, nn.ModuleList)):
        kinds = ", ".join(_describe(h) for h in head)
        raise ArchitectureError(f"the model has {len(head)} heads ({kinds}); models with one head are supported so far")
    if not isinstance(head, nn.Module) or isinstance(head, nn.Identity):
        raise ArchitectureError("the model has no classifier", hint="give it one: --num-classes N")
    path = next((name for name, module in model.named_modules() if module is head), None)
    if path is None:
        raise ArchitectureError(f"the classifier ({_describe(head)}) is not a submodule of the model")
    return _sole_layer(path, head)


def _sole_layer(path: str, head: nn.Module) -> tuple[str, nn.Module]:
    """Return the layer that a head consists of, besides norms, dropout and the like; the head itself if it has more."""
    layers = [(name, module) for name, module in head.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    if len(layers) != 1:
        return path, head
    name, layer = layers[0]
    return f"{path}.{name}" if name else path, layer


def _watch(model: nn.Module, example: Tensor) -> tuple[str, nn.Module]:
    """Return the last module with parameters of its own that a forward pass calls."""
    names = {module: name for name, module in model.named_modules()}
    calls: list[nn.Module] = []
    leaves = [m for m in model.modules() if not any(m.children()) and any(True for _ in m.parameters())]
    hooks = [leaf.register_forward_hook(lambda module, *_: calls.append(module)) for leaf in leaves]
    try:
        output = run_in_eval(model, example)
    finally:
        for hook in hooks:
            hook.remove()
    if not isinstance(output, Tensor) or output.dim() != 2 or not calls:
        raise ArchitectureError(f"the model is no image classifier: its output is {_describe_output(output)}")
    head = calls[-1]
    if calls.count(head) > 1:
        raise ArchitectureError(f"the head {names[head]!r} is called {calls.count(head)} times in one forward pass")
    return names[head], head


@torch.no_grad()
def run_in_eval(model: nn.Module, example: Tensor) -> Any:
    """Return `model(example)` in eval mode; every submodule's own mode is restored."""
    modes = {module: module.training for module in model.modules()}
    try:
        return model.eval()(example)
    finally:
        for module, training in modes.items():
            module.training = training


def _describe(module: object) -> str:
    return f"a {type(module).__name__}"


def _describe_output(output: object) -> str:
    return f"a tensor {list(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
