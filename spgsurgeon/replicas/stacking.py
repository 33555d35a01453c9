"""One forward pass for a whole episode: the hooks that take the hidden states of all steps through the shared head.

Shapes: N images, T replicas; stacked tensors are [(T+1)*N, ...], step-major. Hooks are bound methods of objects that
hold their chain, not closures: deepcopy (moving averages) then binds the copy's hooks to the copy's chains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.utils.checkpoint import checkpoint
from torch.utils.hooks import RemovableHandle

from spgsurgeon.replicas.places import Place

Inputs = tuple[Any, ...]


class ReplicaChain(nn.ModuleList):
    """The replicas 1..T of one place, each fed by the one before it.

    `base_step` is what a control does to the hidden state of step 0, given `training`: a plain function, no module.
    """

    def __init__(self, replicas: Iterable[nn.Module] = (), *, base_step: Callable[..., Tensor] | None = None) -> None:
        super().__init__(replicas)
        self.base_step = base_step
        self.blocks = 1
        """How many steps of other chains are stacked already in what comes in."""

    @property
    def steps(self) -> int:
        """How many steps are stacked in what goes out."""
        return self.blocks * (len(self) + 1)

    @property
    def alters(self) -> bool:
        """Whether in train mode something else goes on than what comes in."""
        return len(self) > 0 or self.base_step is not None

    @property
    def active(self) -> bool:
        """Whether it alters what passes as its mode is."""
        return self.training and self.alters

    def forward(
        self, hidden: Tensor, *beside: Any, last: int | None = None, recompute: bool = False
    ) -> tuple[Tensor, ...]:
        """Return the hidden states of steps 0..`last`, T if it is None; each replica also gets what is `beside`.

        With `recompute` what lies between them is made again, not kept.
        """
        states = [hidden if self.base_step is None else self.base_step(hidden, training=self.training)]
        for replica in islice(self, last):
            given = (states[-1], *beside)
            states.append(checkpoint(replica, *given, use_reentrant=False) if recompute else replica(*given))
        return tuple(states)


class Hook:
    """Something of a graft that is registered on the submodule `module` of the base."""

    module: str

    def forget(self) -> None:
        """Drop what a forward pass that failed has left."""

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """Register on `base` and return what takes it off again."""
        raise NotImplementedError


class StackedInput(Hook):
    """Puts the hidden states of all steps in the place of what enters a module (of its entry `key`)."""

    def __init__(self, chain: ReplicaChain, module: str, key: str | None) -> None:
        self.chain, self.module, self.key = chain, module, key

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        return [base.get_submodule(self.module).register_forward_pre_hook(self.enter)]

    def enter(self, module: nn.Module, inputs: Inputs) -> Inputs | None:
        """The forward pre-hook."""
        if not self.chain.active:
            return None
        return _with_hidden(inputs, self.key, torch.cat(self.chain(_hidden(inputs, self.key))))


class RolledInput(Hook):
    """Puts the hidden state of the step `step` in the place of what enters a module (of its entry `key`)."""

    def __init__(self, chain: ReplicaChain, module: str, key: str | None) -> None:
        self.chain, self.module, self.key, self.step = chain, module, key, 0

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        return [base.get_submodule(self.module).register_forward_pre_hook(self.enter)]

    def enter(self, module: nn.Module, inputs: Inputs) -> Inputs | None:
        """The forward pre-hook."""
        if not self.chain.active:
            return None
        return _with_hidden(inputs, self.key, self.chain(_hidden(inputs, self.key), last=self.step)[-1])


class StackedOutput(Hook):
    """Puts the hidden states of all steps in the place of what leaves a module, or of the first of it.

    With `beside` each replica gets the module's other arguments too, as (by position, by name).
    """

    def __init__(self, chain: ReplicaChain, module: str, *, beside: bool = False) -> None:
        self.chain, self.module, self._beside = chain, module, beside

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        return [base.get_submodule(self.module).register_forward_hook(self.leave, with_kwargs=True)]

    def leave(self, module: nn.Module, inputs: Inputs, options: dict[str, Any], output: Any) -> Any:
        """The forward hook."""
        if not self.chain.active:
            return None
        others = {name: value for name, value in options.items() if name != "hidden_states"}
        hidden, *rest = output if isinstance(output, tuple) else (output,)
        states = torch.cat(self.chain(hidden, *((inputs[1:], others) if self._beside else ())))
        return (states, *rest) if isinstance(output, tuple) else states


class StackedAgain(Hook):
    """Puts the hidden states of all steps in the place of what leaves a module that its replicas run again.

    Each replica gets its hidden state, what entered the module, and the module, of which it keeps nothing.
    """

    def __init__(self, chain: ReplicaChain, place: Place) -> None:
        self.chain, self.module, self._call, self._calls = chain, place.module, place.call, place.calls
        self.forget()

    def forget(self) -> None:
        """See `Hook`."""
        self._entered: Tensor | None = None
        self._number = 0

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        module = base.get_submodule(self.module)
        return [module.register_forward_pre_hook(self.enter), module.register_forward_hook(self.leave)]

    def enter(self, module: nn.Module, inputs: Inputs) -> Inputs | None:
        """The forward pre-hook."""
        if not self.chain.active or self._number != self._call:
            return None
        self._entered = inputs[0]
        return _own(module, inputs)

    def leave(self, module: nn.Module, inputs: Inputs, output: Tensor) -> Tensor | None:
        """The forward hook."""
        if not self.chain.active:
            return None
        entered, self._entered = self._entered, None
        self._number = (self._number + 1) % self._calls
        return None if entered is None else torch.cat(self.chain(output, entered, module))


class PerStep(Hook):
    """Runs a batch norm (or dropout) of the shared head on each step by itself.

    Each step is normalised by its own statistics, and only those of step 0, which is what inference will see, enter the
    running ones.
    """

    def __init__(self, chain: ReplicaChain, module: str) -> None:
        self.chain, self.module = chain, module
        self._later: tuple[Tensor, ...] = ()

    def forget(self) -> None:
        """See `Hook`."""
        self._later = ()

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        module = base.get_submodule(self.module)
        return [module.register_forward_pre_hook(self.enter), module.register_forward_hook(self.leave)]

    def enter(self, module: nn.Module, inputs: Inputs) -> Inputs | None:
        """The forward pre-hook: step 0 goes the usual way."""
        self.forget()
        if not (self.chain.active and module.training):
            return None
        first, *later = inputs[0].chunk(self.chain.steps)
        self._later = tuple(later)
        return _own(module, (first,))

    def leave(self, module: nn.Module, inputs: Inputs, output: Tensor) -> Tensor | None:
        """The forward hook: the other steps follow."""
        later, self._later = self._later, ()
        return torch.cat([output, *(run_untracked(module, step) for step in later)]) if later else None


class SequentialHead(Hook):
    """Runs a whole head on one step after the other, and again in the backward pass instead of keeping what it made.

    Of a further step only its hidden state is kept; its price is another forward pass of replica and head. `chains` are
    those of the maps that enter by these names (None: all that enters).
    """

    def __init__(self, chains: Mapping[str | None, ReplicaChain], module: str) -> None:
        self.chains, self.module = dict(chains), module
        self._later: list[Inputs] = []

    def forget(self) -> None:
        """See `Hook`."""
        self._later = []

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        module = base.get_submodule(self.module)
        return [module.register_forward_pre_hook(self.enter), module.register_forward_hook(self.leave)]

    def enter(self, module: nn.Module, inputs: Inputs) -> Inputs | None:
        """The forward pre-hook: step 0 goes the usual way, the states of the others are made."""
        self.forget()
        chains = list(self.chains.values())
        if not all(chain.active for chain in chains):
            return None
        steps = [inputs] * (len(chains[0]) + 1)
        for key, chain in self.chains.items():
            states = chain(_hidden(inputs, key), recompute=True)
            steps = [_with_hidden(step, key, state) for step, state in zip(steps, states, strict=True)]
        first, *self._later = steps
        return _own(module, first)

    def leave(self, module: nn.Module, inputs: Inputs, output: Tensor) -> Tensor | None:
        """The forward hook: the other steps follow."""
        later, self._later = self._later, []
        if not later:
            return None
        return torch.cat([output, *(checkpoint(run_untracked, module, *step, use_reentrant=False) for step in later)])


def per_step_modules(head: nn.Module, path: str) -> list[str]:
    """Return the paths of what inside `head`, itself at `path`, must see each step for itself.

    Batch norms, for their statistics; dropouts, so that the order of random numbers is that of `SequentialHead`.
    """
    inside = [name for name, part in head.named_modules() if isinstance(part, _BatchNorm | _DropoutNd)]
    return [".".join(filter(None, (path, name))) for name in inside]


def run_untracked(module: nn.Module, *inputs: Any) -> Any:
    """Return `module.forward(*inputs)`, its own hooks left out, with running statistics kept as they are."""
    with running_statistics_kept(module):
        return module.forward(*_own(module, inputs))


@contextmanager
def running_statistics_kept(module: nn.Module) -> Iterator[None]:
    """Normalise by the batch as in training, but leave running statistics (and their counter) as they are."""
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm) and part.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _own(module: nn.Module, inputs: Inputs) -> Inputs:
    """Return the inputs, as copies where a part of `module` writes over what it reads: others read it too."""
    if not any(getattr(part, "inplace", False) for part in module.modules()):
        return inputs
    first, *rest = inputs
    copied = {key: value.clone() for key, value in first.items()} if isinstance(first, Mapping) else first.clone()
    return (copied, *rest)


def _hidden(inputs: Inputs, key: str | None) -> Tensor:
    """Return the hidden state among a module's inputs."""
    hidden: Tensor = inputs[0] if key is None else inputs[0][key]
    return hidden


def _with_hidden(inputs: Inputs, key: str | None, hidden: Tensor) -> Inputs:
    """Return a module's inputs with another hidden state among them."""
    first, *rest = inputs
    return (hidden if key is None else {**first, key: hidden}, *rest)
