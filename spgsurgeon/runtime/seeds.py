"""Random numbers as a function of what they are for, not of what ran before."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed for the purpose that `parts` name, e.g. (seed, "augment", epoch, index).

    It depends on nothing else: the same on every process, machine and version. `1` and `"1"` are different parts.
    """
    digest = hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's generators of the CPU and of `device`, which draw as after `torch.manual_seed(seed)`, and numpy's.

    That one also asks every kind of accelerator there may be, which takes some tenths of a millisecond. From numpy's
    global generator models of transformers draw which frames of a sound are masked (SpecAugment).
    """
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):  # else it would be the current one's
            torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


@contextmanager
def isolated_generator(seed: int) -> Iterator[None]:
    """Seed torch's CPU generator inside the block, and put the caller's state back after it.

    Accelerators' generators are left alone (torch.manual_seed would reseed them too), and so are Python's and NumPy's:
    nothing here draws from them, and saving NumPy's for each sample costs more than a small image's whole transform.
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
