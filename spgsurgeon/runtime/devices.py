"""What a device may be called. Without torch, so that a recipe is read as fast as before."""

from __future__ import annotations

import re

DEVICES = "auto, cpu, cuda, cuda:N or mps"
_PATTERN = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def known_device(device: str) -> str:
    """Return the name of a device as it is. Raises ValueError for what is not the name of one."""
    if _PATTERN.fullmatch(device):
        return device
    raise ValueError(f"{device!r} is not a device; it must be {DEVICES}")
