"""Attaching replicas, taking them down, and the laws that prove both."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
