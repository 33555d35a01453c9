"""Wrapper names in the keys of a state dict: DataParallel's, torch.compile's, FSDP's, a training class's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from spgsurgeon.checkpoint.refusals import UnreadableError

# Modules that wrap another one under a name of their own. They wrap the whole model, or a part: then their name is in
# the middle of some keys.
_WRAPPERS = ("_orig_mod.", "_forward_module.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
# Names that other modules bear as well, so they go only where every key begins with them: DataParallel and
# DistributedDataParallel, the attribute that most training classes and Transformers' timm wrapper keep the model in.
_ATTRIBUTES = ("model.", "timm_model.")
_LEADING = ("module.", *_WRAPPERS, *_ATTRIBUTES)

_MOST_WRAPPERS = 32  # around one another; a hostile key has a million

_FLAT = re.compile(r"(^|\.)_?flat_param(_\d+)?$")


@dataclass(frozen=True)
class Unwrapped:
    """Keys without their wrappers' names, in the order given, and these names: the outermost first, then inner ones."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]


def unwrap(keys: Iterable[str], *, any_attribute: bool = False) -> Unwrapped:
    """Return the keys with every wrapper's name taken out, in any order and depth; no two keys become equal.

    `any_attribute` says that the model is certainly held by a training class, as in Lightning's files: then one
    prefix of any name is taken off, beside the wrappers' own.
    """
    rest = list(keys)
    found: list[str] = []
    while len(found) < _MOST_WRAPPERS:
        if prefix := _shared_prefix(rest, any_attribute):
            found.append(prefix)
            rest = [key.removeprefix(prefix) for key in rest]
            any_attribute = any_attribute and prefix in ("module.", *_WRAPPERS)
        elif wrapper := _inner_wrapper(rest):
            found.append(wrapper)
            rest = [_without(wrapper, key) for key in rest]
        else:
            break
    return Unwrapped(tuple(rest), tuple(found))


def refuse_flat_parameters(keys: Iterable[str]) -> None:
    """Raise UnreadableError if FSDP has joined the parameters of a module into one of its own."""
    for key in keys:
        if _FLAT.search(key):
            raise UnreadableError(
                f"holds a flat parameter of FSDP, {key!r:.120}: the model's tensors are joined in it, split by process",
                hint="save a full state dict: torch.distributed.checkpoint.state_dict.get_model_state_dict with "
                "StateDictOptions(full_state_dict=True, cpu_offload=True)",
                code="flat-parameters",
            )


def _shared_prefix(keys: list[str], any_attribute: bool) -> str | None:
    attribute, dot, _ = keys[0].partition(".") if keys else ("", "", "")
    prefix = attribute + dot
    if not dot or not (any_attribute or prefix in _LEADING):
        return None
    return prefix if all(key.startswith(prefix) and key != prefix for key in keys) else None


def _inner_wrapper(keys: list[str]) -> str | None:
    """Return a wrapper's name that stands somewhere in the keys and can go without making two of them equal."""
    for wrapper in _WRAPPERS:
        if any(wrapper in key for key in keys):
            without = {_without(wrapper, key) for key in keys}
            if without != set(keys) and len(without) == len(keys):
                return wrapper
    return None


def _without(wrapper: str, key: str) -> str:
    """Return the key without the components that are the wrapper's name; the last one is the tensor's own."""
    *modules, name = key.split(".")
    return ".".join([*(module for module in modules if module != wrapper.removesuffix(".")), name])
