"""Weight files: reading strangers' safely, writing atomically, hashing content, the folders the package writes."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
