"""The recipe: its schema, its reader with places and near names, its writer, and where the shipped ones lie."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
