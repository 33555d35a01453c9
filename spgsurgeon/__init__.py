"""Model surgery on checkpoints: graft temporary modules, retrain with Sequential Policy Gradient, strip.

Importing this package imports nothing heavy; a public name, listed in `__init__.pyi`, is loaded when it is first used.
"""

import lazy_loader

__version__ = "0.1.0.dev0"

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__.append("__version__")


def __dir__() -> list[str]:
    return sorted(__all__)
