"""What a process stands on: devices, other processes, signals, seeds, memory, installed packages."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
