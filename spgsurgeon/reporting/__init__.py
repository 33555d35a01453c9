"""What runs recorded, as figures and one page: numbers in, images and HTML out. No model or data is opened here."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
