"""The grafted model: the base, untouched, and its temporary replicas side by side.

Shapes: N images, T replicas. In train mode the hidden states of steps 0..T go through the shared head as one batch,
step-major, so an episode costs one forward pass of the base. K = outputs of a base that has several in train mode.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn

from spgsurgeon.errors import UsageError, VerificationError, did_you_mean
from spgsurgeon.replicas.outputs import joined, stacked
from spgsurgeon.replicas.places import Place
from spgsurgeon.replicas.stacking import (
    Hook,
    PerStep,
    ReplicaChain,
    RolledInput,
    SequentialHead,
    StackedAgain,
    StackedInput,
    StackedOutput,
    per_step_modules,
    running_statistics_kept,
)
from spgsurgeon.replicas.whole_model import whole_model_hooks

HEAD_BATCHES = ("stacked", "sequential", "rollouts")
_LABELS = frozenset({"labels", "start_positions", "end_positions"})  # as the models of transformers call them


class GraftedModel(nn.Module):
    """A base model with replicas at its `places`. Made by `attach`, taken apart by `detach`.

    `replicas` holds one chain a place, in that order. They run while `replicas` is in train mode; the output then has
    (T+1)*N rows, step-major. In eval mode the model is the base. `base` keeps its own keys, its own forward and its own
    mode, so freezing it is `grafted.base.eval()`.
    """

    def __init__(
        self, base: nn.Module, chains: Sequence[ReplicaChain], places: Sequence[Place], head_batch: str
    ) -> None:
        super().__init__()
        self.base = base
        self.replicas = nn.ModuleList(chains)
        self.places = tuple(places)
        self.layout = layout_of(base)
        self._rolls_out = head_batch == "rollouts"
        self._hooks = _hooks(base, chains, places, head_batch)
        self._handles = [handle for hook in self._hooks for handle in hook.register(base)]
        self._hooked = {hook.module: base.get_submodule(hook.module) for hook in self._hooks}

    @property
    def sites(self) -> tuple[str, ...]:
        """The names of the places."""
        return tuple(place.name for place in self.places)

    @property
    def shape(self) -> tuple[int, ...]:
        """T + 1 of each axis: one of a chain, two of a mesh."""
        chains = zip(self.places, self.replicas, strict=True)
        lengths = {place.axis: len(cast(ReplicaChain, chain)) for place, chain in chains}
        return tuple(lengths[axis] + 1 for axis in sorted(lengths))

    @property
    def steps(self) -> int:
        """How many predictions a unit gets in train mode: T + 1, or the cells of a mesh, the first axis slowest."""
        return prod(self.shape)

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the base's output in eval mode, N rows; in train mode one tensor of (T+1)*N rows.

        Where the base has K outputs in train mode (auxiliary heads, or the start and the end of an answer), they come
        stacked: [(T+1)*N, C, ..., K]; those of heads with other classes can't be, and come as a tuple, of which
        `spg_loss` takes one at a time. Raises UsageError if labels are among the inputs: the base's own loss would
        count (T+1)*N predictions against N of them.
        """
        if self.replicas.training and (labels := _LABELS & options.keys()):
            raise UsageError(
                f"a grafted model takes no {', '.join(sorted(labels))}", hint="give them to spg_loss, with its logits"
            )
        try:
            if self._rolls_out and self.replicas.training:
                return torch.cat([self._roll_out(step, *inputs, **options) for step in range(self.steps)])
            output = self.base(*inputs, **options)
        except BaseException:
            for hook in self._hooks:
                hook.forget()
            raise
        return stacked(output) if self.replicas.training else output

    def _roll_out(self, step: int, *inputs: Any, **options: Any) -> Tensor:
        """Return the output of one step by a pass of its own; only that of step 0 moves running statistics."""
        for hook in self._hooks:
            if isinstance(hook, RolledInput):
                hook.step = step
        with running_statistics_kept(self.base) if step else nullcontext():
            return joined(self.base(*inputs, **options))

    def train(self, mode: bool = True) -> GraftedModel:
        """Set the mode. Raises UsageError if a module with a hook of the graft was replaced since, as by SyncBN."""
        self.check_hooked()
        super().train(mode)
        return self

    def check_hooked(self) -> None:
        """Raise UsageError if a module of the base with a hook of the graft is not the one it was."""
        present = dict(self.base.named_modules())
        if lost := [path for path, module in self._hooked.items() if present.get(path) is not module]:
            raise UsageError(
                f"modules of the base were replaced after it was grafted: {', '.join(lost)}",
                hint="replace or convert modules (SyncBatchNorm) first, then graft",
            )

    def hidden_states(self, *inputs: Any, **options: Any) -> tuple[dict[str, Tensor], Any]:
        """Return the hidden states [T+1, N, ...] by place, and the output, of one forward pass as the modes are.

        Without replicas in train mode there are no states.
        """
        seen: dict[str, Tensor] = {}

        def probe(name: str) -> Callable[..., None]:
            return lambda chain, inputs, states: seen.update({name: torch.stack(states)})

        handles = [
            chain.register_forward_hook(probe(name)) for name, chain in zip(self.sites, self.replicas, strict=True)
        ]
        try:
            return seen, self(*inputs, **options)
        finally:
            for handle in handles:
                handle.remove()


def attach(
    base: nn.Module,
    places: str | Place | Sequence[str | Place],
    make_chain: Callable[[nn.Module, Place], ReplicaChain],
    *,
    head_batch: str = "stacked",
) -> GraftedModel:
    """Return `base` grafted with a chain of replicas at each of the `places` (a path: the input of that submodule).

    `make_chain` gives that of a submodule and a place of it, such as a kind's `chain`; all are as long. `head_batch`
    "sequential" takes the steps through a head that is entered one after the other, in the memory of one; "rollouts"
    gives each step a forward pass of the base of its own, the naive way, which costs that much more. The base is held,
    not copied; its state dict and its outputs in eval mode stay as they are. Raises UsageError for what can't be.
    """
    if head_batch not in HEAD_BATCHES:
        raise UsageError(f"head_batch is {' or '.join(HEAD_BATCHES)}, not {head_batch!r}")
    refuse_grafted(base)
    given = [places] if isinstance(places, str | Place) else list(places)
    settled = [Place(place) if isinstance(place, str) else place for place in given]
    _check_places(base, settled)
    if head_batch != "stacked" and any(place.side == "output" or place.axis for place in settled):
        raise UsageError(
            f"head_batch {head_batch} is for heads that are entered, as those of segmentation models, by one chain",
            hint="leave it at stacked for replicas that follow a stage, and for a mesh",
        )
    chains = [make_chain(base.get_submodule(place.module), place) for place in settled]
    grafted = GraftedModel(base, chains, settled, head_batch)
    grafted.replicas.train(base.training)
    grafted.training = base.training
    return grafted


def detach(grafted: GraftedModel) -> nn.Module:
    """Take the replicas down and return the base, with no hook of ours left and its keys as they were.

    The grafted model can't be used any more. Raises VerificationError if the base's keys, their order, shapes or dtypes
    are no longer those it had when it was grafted, UsageError if a module that it has hooks on was replaced.
    """
    if layout_of(grafted.base) != grafted.layout:
        raise VerificationError(
            "the base's keys, order, shapes or dtypes changed since it was grafted",
            hint="cast or edit the model before grafting or after stripping, not in between",
        )
    grafted.check_hooked()
    for handle in grafted._handles:
        handle.remove()
    if _grafts_of(grafted.base):
        raise VerificationError("a hook of the graft is left on the base")
    return grafted.base


def layout_of(module: nn.Module) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Return (key, shape, dtype) of each entry of the state dict, in its order."""
    return layout_of_state(module.state_dict())


def layout_of_state(state: Mapping[str, Tensor]) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Return (key, shape, dtype) of each tensor, in their order."""
    return [(key, tuple(value.shape), value.dtype) for key, value in state.items()]


def _check_places(base: nn.Module, places: Sequence[Place]) -> None:
    if not places or len({place.name for place in places}) != len(places):
        raise UsageError(
            f"replicas attach to one submodule or several different ones, not to {[place.name for place in places]}"
        )
    names = dict(base.named_modules())
    for place in places:
        if place.module not in names:
            raise UsageError(f"the model has no submodule {place.module!r}", hint=did_you_mean(place.module, names))


def _hooks(base: nn.Module, chains: Sequence[ReplicaChain], places: Sequence[Place], head_batch: str) -> list[Hook]:
    """Return what must be registered, in this order: hidden states are stacked before a batch norm takes them apart."""
    pairs = list(zip(chains, places, strict=True))
    hooks: list[Hook] = []
    for module in dict.fromkeys(place.module for place in places if place.side == "input"):
        entering = [(chain, place.key) for chain, place in pairs if place.module == module]
        if head_batch == "sequential":
            hooks.append(SequentialHead({key: chain for chain, key in entering}, module))
            continue
        if head_batch == "rollouts":
            hooks += [RolledInput(chain, module, key) for chain, key in entering]
            continue
        hooks += [StackedInput(chain, module, key) for chain, key in entering]
        last, _ = entering[-1]
        hooks += [PerStep(last, path) for path in per_step_modules(base.get_submodule(module), module)]
    if head_batch != "rollouts":
        hooks += whole_model_hooks(base, pairs)
    for chain, place in pairs:
        if place.side == "output":
            made = (
                StackedAgain(chain, place) if place.again else StackedOutput(chain, place.module, beside=place.beside)
            )
            hooks += [made, *(PerStep(chain, path) for path in place.normalisations)]
    return hooks


def refuse_grafted(model: nn.Module) -> None:
    """Raise UsageError if the model, or a part of it, is grafted or is the base of a graft."""
    if any(isinstance(m, GraftedModel) for m in model.modules()) or _grafts_of(model):
        raise UsageError(
            "the model is grafted already",
            hint="strip it first: spgsurgeon.strip(grafted) gives the base back",
            code="grafted-already",
        )


def _grafts_of(base: nn.Module) -> list[Any]:
    hooks = (
        hook
        for module in base.modules()
        for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    )
    return [hook for hook in hooks if isinstance(getattr(hook, "__self__", None), Hook)]
