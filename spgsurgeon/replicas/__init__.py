"""Task Replica Prediction: the temporary modules and the grafted model that holds them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
