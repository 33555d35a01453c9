"""From a name or a checkpoint to a module, and where replicas attach: the room that knows the model libraries."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
