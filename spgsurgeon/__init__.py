"""Model surgery on vision checkpoints: graft temporary modules, retrain with Sequential Policy Gradient, strip.

Importing this package imports nothing heavy; a public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from spgsurgeon.commands.bench import bench
    from spgsurgeon.commands.inspect import inspect
    from spgsurgeon.commands.modules import export, graft, strip
    from spgsurgeon.errors import SurgeonError
    from spgsurgeon.loading.opening import load
    from spgsurgeon.objective.episode import Episode
    from spgsurgeon.objective.loss import spg_loss
    from spgsurgeon.replicas.grafted import GraftedModel
    from spgsurgeon.replicas.places import Place
    from spgsurgeon.training.run import train

_PUBLIC = {
    "Episode": "spgsurgeon.objective.episode",
    "GraftedModel": "spgsurgeon.replicas.grafted",
    "Place": "spgsurgeon.replicas.places",
    "SurgeonError": "spgsurgeon.errors",
    "bench": "spgsurgeon.commands.bench",
    "export": "spgsurgeon.commands.modules",
    "graft": "spgsurgeon.commands.modules",
    "inspect": "spgsurgeon.commands.inspect",
    "load": "spgsurgeon.loading.opening",
    "spg_loss": "spgsurgeon.objective.loss",
    "strip": "spgsurgeon.commands.modules",
    "train": "spgsurgeon.training.run",
}

__all__ = [
    "Episode",
    "GraftedModel",
    "Place",
    "SurgeonError",
    "__version__",
    "bench",
    "export",
    "graft",
    "inspect",
    "load",
    "spg_loss",
    "strip",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
