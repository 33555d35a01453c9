"""Sound files, opened by soundfile: a few formats by name, and never more of them than is asked for.

Shapes: n samples of one channel.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.errors import DataError, UsageError, first_line
from spgsurgeon.runtime import extra_hint

ENDINGS = (".wav", ".flac", ".ogg")
_FORMATS = ("WAV", "WAVEX", "RF64", "FLAC", "OGG")  # as libsndfile calls what such files hold
LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000
_BLOCK = 2**20  # numbers that are read at a time, of all channels together


@dataclass(frozen=True)
class Sound:
    """What a file holds: float32 [n], the mean of its channels, at `rate` samples a second. `goes_on`: it has more."""

    samples: NDArray[np.float32]
    rate: int
    goes_on: bool


@dataclass(frozen=True)
class Recording:
    """A sound file that is not read yet."""

    path: Path

    def read(self, most_seconds: float) -> Sound:
        """Return the first seconds of it. Raises DataError for what can't be read, and for a file without a sample."""
        if not self.path.is_file():  # a pipe would be waited for
            raise DataError("it is not a regular file" if self.path.exists() else "there is no such file")
        import soundfile

        try:
            with soundfile.SoundFile(os.fsencode(self.path)) as file:
                return _read(file, most_seconds)
        except soundfile.LibsndfileError as error:
            raise DataError(f"it can't be read as sound: {first_line(error).rpartition(': ')[2]}") from error


def need_packages(what: str) -> None:
    """Raise UsageError if a package that reads sound files, or resamples sounds, is not installed."""
    for name in ("soundfile", "scipy"):
        if importlib.util.find_spec(name) is not None:
            continue
        raise UsageError(
            f"{what} needs the package {name}, which is not installed",
            hint=extra_hint("transformers"),
            code="missing-package",
        )


def _read(file: Any, most_seconds: float) -> Sound:
    rate = file.samplerate
    if file.format not in _FORMATS:
        raise DataError(f"its content is {file.format}, which is not read", hint=f"read are {', '.join(ENDINGS)}")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise DataError(f"it says {rate:,} samples a second; {LOWEST_RATE:,} to {HIGHEST_RATE:,} are read")
    most = round(most_seconds * rate)
    blocks = list(_blocks(file, most + 1))
    samples = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.float32)
    if not len(samples):
        raise DataError("it holds no sound: it has no sample")
    return Sound(samples[:most], rate, len(samples) > most)


def _blocks(file: Any, most: int) -> Iterator[NDArray[np.float32]]:
    """Give what a file holds in parts, at most so many samples: what its header says of its length may be wrong."""
    size = max(1, _BLOCK // file.channels)
    while most > 0:
        block = file.read(min(size, most), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block[:, 0] if block.shape[1] == 1 else block.mean(axis=1)
        most -= len(block)
