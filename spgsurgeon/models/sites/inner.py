"""Where replicas attach that run a layer of the body again: the last activation, batch norm or residual block.

Shapes: N images, D = width of what leaves a layer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node
from torch.nn.modules.batchnorm import _BatchNorm

from spgsurgeon.errors import ArchitectureError
from spgsurgeon.models.sites.families import residual_blocks
from spgsurgeon.models.sites.heads import ACTIVATION, BLOCK, NORM, TOKENS, InnerSite
from spgsurgeon.models.sites.segmentation import is_segmentation_model
from spgsurgeon.models.sites.tracing import meta_twin, run_twin, shape_of

_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
_NORMS = (
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.batchnorm.BatchNorm2d",
    "timm.layers.norm_act.BatchNormAct2d",
)
_TRANSFORMER = "transformer"


@dataclass(frozen=True)
class _Call:
    """A call of the submodule at `path`, its `number` among those of one pass; shapes, and what made the output."""

    path: str
    number: int
    entered: tuple[int, ...]
    left: tuple[int, ...]
    made: Node | None


@dataclass(frozen=True)
class _Trace:
    """One pass: the calls that take and give a tensor, in the order in which they ended, and what made the outputs."""

    calls: tuple[_Call, ...]
    outputs: tuple[Node, ...]


class InnerSites:
    """Looks for layers in the body of `model`, an image classifier, by one pass on the meta device.

    Of `example` [N, channels, H, W] only the size and type matter.
    """

    def __init__(self, model: nn.Module, example: Tensor) -> None:
        self._model, self._example = model, example

    def find(self, what: str) -> InnerSite:
        """Return where replicas attach to `what`, one of `INNER`: the last such layer, if all of the rest reads that.

        What follows it has more rows then, and costs more; behind an earlier layer that would be much of the model.
        Raises ArchitectureError if there is none, or none that such replicas can change.
        """
        if is_segmentation_model(self._model):
            raise ArchitectureError(f"such replicas are for classifiers, not for a {type(self._model).__name__}")
        find = {ACTIVATION: self._activation, NORM: self._norm, BLOCK: self._block, TOKENS: self._tokens}[what]
        return find()

    def _activation(self) -> InnerSite:
        call = self._last(_is_activation, "activation")
        layer = self._modules[call.path]
        if not isinstance(layer, nn.ReLU | nn.ReLU6 | nn.LeakyReLU):
            kind = type(layer).__name__
            raise ArchitectureError(f"the last activation, {call.path!r}, is a {kind}, which has no negative slope")
        return self._site(call, value=float(getattr(layer, "negative_slope", 0.0)))

    def _norm(self) -> InnerSite:
        return self._site(self._last(_is_norm, "batch norm"))

    def _block(self) -> InnerSite:
        family, blocks = residual_blocks(self._model)
        call = self._call_of(list(blocks)[-1])
        if not family.skippable:
            raise ArchitectureError(f"the last block of a {family.name}, {call.path!r}, is not residual throughout")
        if call.entered != call.left:
            raise ArchitectureError(
                f"the last residual block, {call.path!r}, can't be skipped: "
                f"{list(call.entered[1:])} enters it and {list(call.left[1:])} leaves it"
            )
        return self._site(call, channels=-1 if family.channels_last else 1)

    def _tokens(self) -> InnerSite:
        family, blocks = residual_blocks(self._model)
        if family.block != _TRANSFORMER:
            raise ArchitectureError(f"a {family.name} has no sequence of tokens; vision transformers have one")
        prefix = int(getattr(self._model, "num_prefix_tokens", 1))  # torchvision's have one, the class token
        return self._site(self._call_of(list(blocks)[-1]), channels=-1, prefix=prefix)

    @cached_property
    def _modules(self) -> dict[str, nn.Module]:
        return dict(self._model.named_modules())

    @cached_property
    def _trace(self) -> _Trace:
        return _traced(meta_twin(self._model), self._example)

    def _last(self, is_one: Callable[[nn.Module], bool], name: str) -> _Call:
        """Return the last call of such a layer, if nothing of what came before it goes past."""
        calls = self._trace.calls
        places = [place for place, call in enumerate(calls) if is_one(self._modules[call.path])]
        if not places:
            raise ArchitectureError(f"the model has no {name} that is a module")
        call, later = calls[places[-1]], calls[places[-1] + 1 :]
        if not _is_only_way(self._trace, places[-1]):
            raise ArchitectureError(f"what follows the last {name}, {call.path!r}, reads more than what leaves it")
        if not any(True for one in later for _ in self._modules[one.path].parameters(recurse=False)):
            raise ArchitectureError(f"the last {name}, {call.path!r}, follows the layer that makes the logits")
        return call

    def _call_of(self, path: str) -> _Call:
        return next(call for call in self._trace.calls if call.path == path)

    def _site(self, call: _Call, *, value: float = 0.0, channels: int = 1, prefix: int = 0) -> InnerSite:
        calls = self._trace.calls
        later = calls[calls.index(call) + 1 :]
        norms = dict.fromkeys(one.path for one in later if isinstance(self._modules[one.path], _BatchNorm))
        several = sum(one.path == call.path for one in calls)
        return InnerSite(call.path, call.left[channels], call.number, several, value, prefix, tuple(norms))


def _traced(twin: nn.Module, example: Tensor) -> _Trace:
    calls: list[_Call] = []
    entered: dict[str, list[tuple[int, ...]]] = {}
    ended: Counter[str] = Counter()

    def enter(path: str, module: nn.Module, inputs: Any) -> None:
        entered.setdefault(path, []).append(shape_of(*inputs[:1]))

    def leave(path: str, module: nn.Module, inputs: Any, output: Any) -> None:
        made = output.grad_fn if isinstance(output, Tensor) else None
        calls.append(_Call(path, ended[path], entered[path][ended[path]], shape_of(output), made))
        ended[path] += 1

    for path, part in twin.named_modules():
        part.register_forward_pre_hook(partial(enter, path))
        part.register_forward_hook(partial(leave, path))
    output = run_twin(twin, example)
    outputs = output if isinstance(output, tuple | list) else [output]
    made = tuple(one.grad_fn for one in outputs if isinstance(one, Tensor) and one.grad_fn is not None)
    return _Trace(tuple(call for call in calls if call.path and call.entered and call.left), made)


def _is_only_way(trace: _Trace, place: int) -> bool:
    """Return whether a walk back from the outputs that stops at this call meets it, and nothing that ended before."""
    stop, before = trace.calls[place].made, {call.made for call in trace.calls[:place]}
    seen = _walk(trace.outputs, stop)
    return stop is not None and stop in seen and not (before - {stop}) & seen


def _walk(outputs: Sequence[Node], stop: Node | None) -> set[Node]:
    """Return the nodes of the autograd graph that lead to the outputs, without what lies before `stop`."""
    pending, seen = list(outputs), set[Node]()
    while pending:
        node = pending.pop()
        if node in seen:
            continue
        seen.add(node)
        if node != stop:
            pending += [before for before, _ in node.next_functions if before is not None]
    return seen


def _is_activation(module: nn.Module) -> bool:
    return type(module).__module__ in _ACTIVATIONS and not isinstance(module, nn.MultiheadAttention | nn.Softmax)


def _is_norm(module: nn.Module) -> bool:
    kind = type(module)
    known = f"{kind.__module__}.{kind.__qualname__}" in _NORMS
    return known and isinstance(module, _BatchNorm) and module.track_running_stats and module.affine
