"""Wrapper prefixes in front of every key of a state dict: DataParallel's, torch.compile's, a training class's."""

from __future__ import annotations

from collections.abc import Iterable

# DataParallel and DistributedDataParallel, torch.compile, and the attribute most training classes keep the model in.
_WRAPPERS = ("module.", "_orig_mod.", "model.")


def wrapper_prefixes(keys: Iterable[str], *, any_attribute: bool = False) -> tuple[str, ...]:
    """Return the prefixes that every key carries, outermost first.

    `any_attribute` says that the model is certainly held by a training class, as in Lightning's files: then one
    prefix of any name is taken off, beside the wrappers' own.
    """
    rest, found = list(keys), []
    while prefix := _shared_prefix(rest, any_attribute):
        found.append(prefix)
        rest = [key.removeprefix(prefix) for key in rest]
        any_attribute = any_attribute and prefix in ("module.", "_orig_mod.")
    return tuple(found)


def _shared_prefix(keys: list[str], any_attribute: bool) -> str | None:
    attribute, dot, _ = keys[0].partition(".") if keys else ("", "", "")
    prefix = attribute + dot
    if not dot or not (any_attribute or prefix in _WRAPPERS):
        return None
    return prefix if all(key.startswith(prefix) and key != prefix for key in keys) else None
