"""Weights that a model uses in two places, and its library writes once."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn


def shared_weights(module: nn.Module) -> dict[str, str]:
    """Return the keys of a module's state dict that its library leaves out of files, each with the key it equals.

    These are the words that a head of transformers shares with the embeddings; `save_pretrained` writes them once.
    """
    tied: Mapping[str, str] = getattr(module, "all_tied_weights_keys", None) or {}
    return dict(tied)


def saved_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached, as the module's own library writes it."""
    left_out = shared_weights(module)
    return {key: value.detach() for key, value in module.state_dict().items() if key not in left_out}


def load_saved_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy into a module what `saved_state` gave of one like it. Raises RuntimeError naming keys that don't fit."""
    tied = shared_weights(module)
    module.load_state_dict({**state, **{key: state[source] for key, source in tied.items() if key not in state}})
