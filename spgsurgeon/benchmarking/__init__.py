"""What `bench` measures: the product's own steps against each other, in interleaved blocks of one run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
