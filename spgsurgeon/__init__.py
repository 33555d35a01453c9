"""Model surgery on vision checkpoints: graft temporary modules, retrain with Sequential Policy Gradient, strip.

Importing this package imports nothing heavy; a public name is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from spgsurgeon.errors import SurgeonError
    from spgsurgeon.objective.episode import Episode
    from spgsurgeon.objective.loss import spg_loss
    from spgsurgeon.trp.grafted import GraftedModel
    from spgsurgeon.trp.places import Place
    from spgsurgeon.workflows.bench import bench
    from spgsurgeon.workflows.inspect import inspect
    from spgsurgeon.workflows.opening import load
    from spgsurgeon.workflows.surgery import export, graft, strip
    from spgsurgeon.workflows.train import train

_PUBLIC = {
    "Episode": "spgsurgeon.objective.episode",
    "GraftedModel": "spgsurgeon.trp.grafted",
    "Place": "spgsurgeon.trp.places",
    "SurgeonError": "spgsurgeon.errors",
    "bench": "spgsurgeon.workflows.bench",
    "export": "spgsurgeon.workflows.surgery",
    "graft": "spgsurgeon.workflows.surgery",
    "inspect": "spgsurgeon.workflows.inspect",
    "load": "spgsurgeon.workflows.opening",
    "spg_loss": "spgsurgeon.objective.loss",
    "strip": "spgsurgeon.workflows.surgery",
    "train": "spgsurgeon.workflows.train",
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
