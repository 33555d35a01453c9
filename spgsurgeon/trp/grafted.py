"""The grafted model: the base, untouched, and its temporary replicas side by side.

Shapes: N pictures, T replicas. In train mode the hidden states of steps 0..T go through the shared head as one batch,
step-major, so an episode costs one forward pass of the base. K = outputs of a base that has several in train mode.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from spgsurgeon.errors import UsageError, VerificationError, did_you_mean
from spgsurgeon.trp.dropout import dropout_replicas

ReplicaMaker = Callable[..., list[Any]]


def no_replicas(head: nn.Module) -> list[nn.Module]:
    """Return nothing: plain retraining, the control, by the same loop and the same loss."""
    return []


REPLICAS: dict[str, ReplicaMaker] = {
    "dropout": dropout_replicas,
    "none": no_replicas,
}


class ReplicaChain(nn.ModuleList):
    """The replicas 1..T of one site, each fed by the one before it."""

    def stack_steps(self, head: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        """Put the hidden states of steps 0..T, stacked on the first dimension, in the place of `head`'s input."""
        if not self.training or not len(self):
            return None
        hidden, *rest = inputs
        states = [hidden]
        for replica in self:
            states.append(replica(states[-1]))
        return (torch.cat(states), *rest)


class GraftedModel(nn.Module):
    """A base model with replicas at the input of its heads `sites`. Made by `attach`, taken apart by `detach`.

    `replicas` holds one chain a site, in that order. They run while `replicas` is in train mode; the output then has
    (T+1)*N rows, step-major. In eval mode the model is the base. `base` keeps its own keys, its own forward and its own
    mode, so freezing it is `grafted.base.eval()`.
    """

    def __init__(self, base: nn.Module, chains: Sequence[ReplicaChain], sites: Sequence[str]) -> None:
        super().__init__()
        self.base = base
        self.replicas = nn.ModuleList(chains)
        self.sites = tuple(sites)
        self.layout = layout_of(base)
        # Bound methods, not closures: deepcopy (moving averages) then binds the copy's hooks to the copy's chains.
        self._hooks = [
            base.get_submodule(site).register_forward_pre_hook(chain.stack_steps)
            for site, chain in zip(sites, chains, strict=True)
        ]

    @property
    def steps(self) -> int:
        """T + 1: how many predictions a unit gets in train mode."""
        return len(cast(ReplicaChain, self.replicas[0])) + 1

    def forward(self, *inputs: Any, **options: Any) -> Any:
        """Return the base's output: N rows in eval mode, (T+1)*N rows in train mode.

        Where the base has K outputs in train mode (auxiliary heads), they come stacked: [(T+1)*N, C, K].
        """
        output = self.base(*inputs, **options)
        return torch.stack(list(output), dim=-1) if self.replicas.training and isinstance(output, tuple) else output


def attach(base: nn.Module, sites: str | Sequence[str], kind: str = "dropout", **settings: Any) -> GraftedModel:
    """Return `base` grafted with the replicas of `kind` at the input of each of its submodules `sites`.

    `settings` are those of the kind: `replicas` and `rate` for dropout. The base is held, not copied; its state dict
    and its outputs in eval mode stay as they are. Raises UsageError for settings or a site that can't be.
    """
    if kind not in REPLICAS:
        raise UsageError(
            f"unknown kind of replica {kind!r}; there is {', '.join(REPLICAS)}", hint=did_you_mean(kind, REPLICAS)
        )
    if any(isinstance(m, GraftedModel) for m in base.modules()) or _grafts_of(base):
        raise UsageError("the model is grafted already", hint="strip it first")
    sites = [sites] if isinstance(sites, str) else list(sites)
    if not sites or len(set(sites)) != len(sites):
        raise UsageError(f"replicas attach to one submodule or several different ones, not to {sites}")
    names = dict(base.named_modules())
    for site in sites:
        if site not in names:
            raise UsageError(f"the model has no submodule {site!r}", hint=did_you_mean(site, names))
    grafted = GraftedModel(base, [ReplicaChain(REPLICAS[kind](names[site], **settings)) for site in sites], sites)
    grafted.replicas.train(base.training)
    grafted.training = base.training
    return grafted


def detach(grafted: GraftedModel) -> nn.Module:
    """Take the replicas down and return the base, with no hook of ours left and its keys as they were.

    The grafted model can't be used any more. Raises VerificationError if the base's keys, their order, shapes or dtypes
    are no longer those it had when it was grafted.
    """
    if layout_of(grafted.base) != grafted.layout:
        raise VerificationError(
            "the base's keys, order, shapes or dtypes changed since it was grafted",
            hint="cast or edit the model before grafting or after stripping, not in between",
        )
    for hook in grafted._hooks:
        hook.remove()
    if _grafts_of(grafted.base):
        raise VerificationError("a hook of the graft is left on the base")
    return grafted.base


def layout_of(module: nn.Module) -> list[tuple[str, tuple[int, ...], torch.dtype]]:
    """Return (key, shape, dtype) of each entry of the state dict, in its order."""
    return [(key, tuple(value.shape), value.dtype) for key, value in module.state_dict().items()]


def _grafts_of(base: nn.Module) -> list[Any]:
    hooks = (hook for module in base.modules() for hook in module._forward_pre_hooks.values())
    return [hook for hook in hooks if isinstance(getattr(hook, "__self__", None), ReplicaChain)]
