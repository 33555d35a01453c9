"""Hooks on a whole model of transformers: inputs as often as its head reads them, nothing kept for a next token.

Shapes: N samples, T replicas.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spgsurgeon.errors import UsageError
from spgsurgeon.models import head_of_class
from spgsurgeon.replicas.places import Place
from spgsurgeon.replicas.stacking import Hook, ReplicaChain

Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class TiledInputs(Hook):
    """Gives a model each of its inputs T+1 times, [(T+1)*N, ...], and its body the first N rows of them.

    For heads that read a mask, or where a text ends, after the hidden states of all steps were stacked, and for what
    follows the last layer, which may do so. The body still
    runs once, on N samples.
    """

    def __init__(self, chain: ReplicaChain, body: str) -> None:
        self.chain, self.module = chain, body
        self._rows = 0

    def forget(self) -> None:
        """See `Hook`."""
        self._rows = 0

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        return [
            base.register_forward_pre_hook(self.tile, with_kwargs=True),
            base.get_submodule(self.module).register_forward_pre_hook(self.first, with_kwargs=True),
        ]

    def tile(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Arguments | None:
        """The model's forward pre-hook. Only tensors of as many rows as the first one has are of the samples."""
        self.forget()
        steps = self.chain.steps
        given = [value for value in (*inputs, *options.values()) if isinstance(value, Tensor)]
        if steps == 1 or not self.chain.active or not given:
            return None
        rows = self._rows = len(given[0])
        return _each(inputs, options, lambda value: torch.cat([value] * steps) if len(value) == rows else value)

    def first(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Arguments | None:
        """The body's forward pre-hook."""
        rows, stacked = self._rows, self._rows * self.chain.steps
        self.forget()
        if not rows:
            return None
        # of choices the model makes as many rows as there are choices, before its body reads them
        return _each(
            inputs,
            options,
            lambda value: value[: len(value) * rows // stacked] if len(value) and len(value) % stacked == 0 else value,
        )


class KeepsNothing(Hook):
    """Has a model that predicts a next token not keep what only the token after it needs, unless it is asked to."""

    module = ""

    def register(self, base: nn.Module) -> list[RemovableHandle]:
        """See `Hook`."""
        return [base.register_forward_pre_hook(self.enter, with_kwargs=True)]

    def enter(self, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> Arguments:
        """The forward pre-hook."""
        return inputs, {"use_cache": False, **options}


def whole_model_hooks(base: nn.Module, pairs: Sequence[tuple[ReplicaChain, Place]]) -> list[Hook]:
    """Return what must be registered on `base` itself if it is a class of transformers that needs it."""
    head = head_of_class(type(base))
    if head is None:
        return []
    if len(pairs) > 1 and any(place.beside for _, place in pairs):
        raise UsageError(
            f"a mesh has no axis of depth in a {head.name}: how often its inputs are repeated is known for one axis",
            hint="take depth alone, or two kinds at the head",
        )
    hooks: list[Hook] = [KeepsNothing()] if head.remembers else []
    return hooks + [
        TiledInputs(chain, head.family.body)
        for chain, place in pairs
        if place.beside or (head.tiled and place.module == head.module and place.axis == 0)
    ]


def _each(inputs: tuple[Any, ...], options: dict[str, Any], change: Callable[[Tensor], Tensor]) -> Arguments:
    """Return a call's arguments with every tensor that has rows changed."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, Tensor) and value.dim() else value

    return tuple(map(changed, inputs)), {name: changed(value) for name, value in options.items()}
