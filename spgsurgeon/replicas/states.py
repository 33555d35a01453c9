"""State dicts of grafted models: the base's part of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from spgsurgeon.errors import UsageError

_REPLICAS = "replicas."
BASE = "base."
"""What stands before the base's keys in the state dict of a grafted model."""
_T = TypeVar("_T")


def base_of_state(state: Mapping[str, _T]) -> dict[str, _T]:
    """Return the base's tensors, by its own keys, of a grafted model's state dict; wrappers' names may stand before.

    Raises UsageError if it is not of one.
    """
    prefixes = {match[1] for key in state if (match := _BEFORE_REPLICAS.match(key))}
    found = [prefix for prefix in prefixes if any(key.startswith(prefix + BASE) for key in state)]
    if len(found) != 1:
        shown = ", ".join(list(state)[:3])
        raise UsageError(
            f"the state dict is not of one grafted model: it has no keys base. and replicas. (its first: {shown})",
            hint="of a checkpoint of Lightning give checkpoint['state_dict']",
            code="not-grafted",
        )
    start = found[0] + BASE
    return {key.removeprefix(start): value for key, value in state.items() if key.startswith(start)}


def holds_replicas(keys: Iterable[str]) -> bool:
    """Return whether keys that lie beside a model's are those of replicas."""
    return any(_BEFORE_REPLICAS.match(key) for key in keys)


_BEFORE_REPLICAS = re.compile(r"((?:.*?\.)?)" + re.escape(_REPLICAS) + r"\d+\.")
