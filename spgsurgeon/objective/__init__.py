"""Episodes and the Sequential Policy Gradient loss: pure functions on tensors."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
