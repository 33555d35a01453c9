"""Tasks: what a model is trained and scored for, each in one file. Nothing above this room names one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
