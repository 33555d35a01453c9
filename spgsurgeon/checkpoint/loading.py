"""torch.load, behind the pickle scan and the archive checks."""

from __future__ import annotations

import argparse
import mmap
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import torch

from spgsurgeon.checkpoint.allowlist import DICT_GLOBALS, IGNORED_GLOBALS
from spgsurgeon.checkpoint.archives import read_pickle
from spgsurgeon.checkpoint.pickles import check_pickle
from spgsurgeon.errors import DamagedFileError, UnsafeInputError

_LEGACY_PICKLES = 5  # magic number, protocol version, system facts, the object, storage keys; then raw storages


class _PlainDict:
    """Stands in for dictionary classes: calling it gives an empty dict."""

    def __new__(cls, *args: object) -> Any:
        return {}


class _Ignored:
    """Stands in for values that reading weights does not need: takes any arguments and state, keeps none."""

    def __new__(cls, *args: object) -> _Ignored:
        return object.__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


STAND_INS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    argparse.Namespace,
    *((_PlainDict, name) for name in sorted(DICT_GLOBALS)),
    *((_Ignored, name) for name in sorted(IGNORED_GLOBALS)),
]


def load_torch_zip(path: Path) -> Any:
    """Return the object in a zip of torch.save, its tensors memory-mapped on the CPU."""
    check_pickle(path, read_pickle(path))
    if path.suffix == ".safetensors":  # torch.load would go by the suffix
        with path.open("rb") as file:
            return _load(path, file, memory_map=False)
    return _load(path, path, memory_map=True)


def load_torch_legacy(path: Path) -> Any:
    """Return the object in a stream of pickles as torch.save wrote before 1.6, its tensors in memory."""
    with path.open("rb") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            for _ in range(_LEGACY_PICKLES):
                check_pickle(path, cast(IO[bytes], mapped))
        return _load(path, file, memory_map=False)


def _load(path: Path, source: Path | IO[bytes], *, memory_map: bool) -> Any:
    with torch.serialization.safe_globals(STAND_INS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of pickle protocols it may not read, then says so by failing
        try:
            return torch.load(source, map_location="cpu", weights_only=True, mmap=memory_map)
        except pickle.UnpicklingError as error:
            raise UnsafeInputError(
                f"{path} was not loaded: torch's weights-only loader refuses its pickle",
                hint="save the weights again with torch.save and its default pickle protocol",
            ) from error
        except (OSError, MemoryError):
            raise
        except Exception as error:  # torch raises whatever the broken part happens to trip over
            raise DamagedFileError(
                f"{path} is damaged: {_first_line(error)}", hint="copy or download it again"
            ) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
