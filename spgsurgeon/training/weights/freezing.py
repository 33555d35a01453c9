"""What of the base stays as it is, bit for bit: parts that do not learn, and running statistics."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from torch import nn

from spgsurgeon.errors import UsageError, closest

_SHOWN = 4


class Frozen:
    """Parts of `base` that do not learn, by dotted `patterns`: `layer1`, `blocks.[0-3]`, `*.bn1`.

    A pattern names a module, with all that lies in it, or a parameter; each of its parts may have wildcards as file
    names do, and none of them reaches over a dot. No gradient is computed for such parameters. With `statistics` all
    batch norms stay in eval mode, also those that learn. Raises UsageError for a pattern that nothing matches, and if
    nothing of the base would learn.
    """

    def __init__(self, base: nn.Module, patterns: Sequence[str], *, statistics: bool = False) -> None:
        self._base = base
        self._norms = [module for module in base.modules() if statistics and _keeps_statistics(module)]
        if not patterns:
            return
        self._check(base, patterns)
        # A parameter with several names is frozen by any of them.
        for name, parameter in base.named_parameters(remove_duplicate=False):
            if _is_below(name, patterns):
                parameter.requires_grad_(False)
        if not any(parameter.requires_grad for parameter in base.parameters()):
            raise UsageError(
                f"training.freeze leaves nothing of the model to learn: {', '.join(patterns)}",
                hint="leave a part out, such as the head",
                code="all-frozen",
            )
        self._norms += [module for name, module in base.named_modules() if _is_frozen_norm(name, module, patterns)]

    @property
    def follows_batches(self) -> bool:
        """Whether the base has batch norms that normalise by each batch in training."""
        return any(_keeps_statistics(module) and module not in self._norms for module in self._base.modules())

    def keep(self) -> None:
        """Put the batch norms of frozen parts into eval mode: after each change to train mode."""
        for module in self._norms:
            module.eval()

    @staticmethod
    def _check(base: nn.Module, patterns: Iterable[str]) -> None:
        paths = [name for name, module in base.named_modules() if name and any(True for _ in module.parameters())]
        known = [*paths, *(name for name, _ in base.named_parameters(remove_duplicate=False))]
        for pattern in patterns:
            if not any(_matches(name, pattern) for name in known):
                near = closest(pattern, known) or list(dict.fromkeys(name.partition(".")[0] for name in paths))[:_SHOWN]
                raise UsageError(
                    f"training.freeze: nothing in the model matches {pattern!r}",
                    hint=f"these are near: {', '.join(near)}; `spgsurgeon inspect MODEL --tensors` lists all names",
                    code="unmatched-freeze",
                    pattern=pattern,
                    near=near,
                )


def _is_frozen_norm(name: str, module: nn.Module, patterns: Sequence[str]) -> bool:
    """Return whether a module keeps running statistics, and lies in a frozen part or has only frozen weights."""
    if not _keeps_statistics(module):
        return False
    own = [parameter.requires_grad for parameter in module.parameters(recurse=False)]
    return _is_below(name, patterns) or (bool(own) and not any(own))


def _keeps_statistics(module: nn.Module) -> bool:
    return bool(getattr(module, "track_running_stats", False))


def _is_below(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a pattern matches this name, or that of a module around it."""
    parts = name.split(".")
    starts = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return any(_matches(start, pattern) for pattern in patterns for start in starts)


def _matches(name: str, pattern: str) -> bool:
    """Return whether a dotted name has as many parts as the pattern, each of which fits."""
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(fnmatchcase(part, want) for part, want in zip(parts, wanted, strict=True))
