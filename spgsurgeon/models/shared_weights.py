"""The state dict as a model's own library writes it: transformers leaves out shared weights and keeps older names."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from spgsurgeon.models.sites.transformers_sites import is_of_transformers


def shared_weights(module: nn.Module) -> dict[str, str]:
    """Return the keys of a module's state dict that its library leaves out of files, each with the key it equals.

    These are the words that a head of transformers shares with the embeddings; `save_pretrained` writes them once.
    """
    tied: Mapping[str, str] = getattr(module, "all_tied_weights_keys", None) or {}
    return dict(tied)


def saved_state(module: nn.Module) -> dict[str, Tensor]:
    """Return the state dict, detached, as the module's own library writes it."""
    state, names = module.state_dict(), _names_in_files(module)
    return {name: state[key].detach() for key, name in names.items()}


def load_saved_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy into a module what `saved_state` gave of one like it. Raises RuntimeError naming keys that don't fit."""
    keys = {name: key for key, name in _names_in_files(module).items()}
    own = {keys.get(name, name): value for name, value in state.items()}
    tied = {key: own[source] for key, source in shared_weights(module).items() if source in own}
    module.load_state_dict(tied | own)


def _names_in_files(module: nn.Module) -> dict[str, str]:
    """Return what each key of the state dict is called in a file, in its order, without those that are left out.

    Where transformers gave parts of a model other names than older files have, it goes on writing the older ones.
    """
    left_out = shared_weights(module)
    own = {key: value for key, value in module.state_dict(keep_vars=True).items() if key not in left_out}
    if not is_of_transformers(module):
        return {key: key for key in own}
    from transformers.core_model_loading import revert_weight_conversion

    written = {id(value): name for name, value in revert_weight_conversion(module, own).items()}
    return {key: written.get(id(value), key) for key, value in own.items()}
