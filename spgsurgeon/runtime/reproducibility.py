"""What results depend on beside the recipe: versions, devices, and torch's switches."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.distributed import Processes

_PACKAGES = ("spgsurgeon", "torch", "torchvision", "timm", "numpy", "pillow")
_WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def environment(processes: Processes) -> dict[str, Any]:
    """Return what this process computes with; plain data."""
    device = processes.device
    cuda = device.type == "cuda"
    return {
        **{name: _version(name) for name in _PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if cuda else platform.processor() or platform.machine(),
        "device_type": device.type,
        "cuda": torch.version.cuda if cuda else None,
        "cudnn": torch.backends.cudnn.version() if cuda else None,
        "world_size": processes.world_size,
        "threads": torch.get_num_threads(),
        "flags": {
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
            "float32_matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        },
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # run from its sources
        return "not installed"


@contextmanager
def tf32_products(wanted: bool) -> Iterator[None]:
    """Let matrix products in float32 use TF32 inside the block, on CUDA devices that have it. Others don't change."""
    if not wanted or torch.backends.cuda.matmul.allow_tf32:
        yield
        return
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False


def choose_deterministic_workspace() -> None:
    """Let cuBLAS have a workspace that deterministic algorithms go with; torch looks once, at its first product.

    Raises UsageError if another one was chosen.
    """
    if os.environ.setdefault(_WORKSPACE, ":4096:8") not in (":4096:8", ":16:8"):
        raise UsageError(
            f"training.deterministic needs {_WORKSPACE}=:4096:8 or :16:8, and it is {os.environ[_WORKSPACE]}",
            hint=f"unset {_WORKSPACE}",
        )


@contextmanager
def fastest_convolutions(wanted: bool) -> Iterator[None]:
    """Let cuDNN try its algorithms for each size of image inside the block, and take the fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = wanted or before
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Hold torch to its deterministic algorithms inside the block; an operation that has none raises RuntimeError.

    Raises as `choose_deterministic_workspace` does.
    """
    if not wanted:
        yield
        return
    choose_deterministic_workspace()
    switches: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), switches.fill_uninitialized_memory
    benchmark = torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    switches.fill_uninitialized_memory = False  # it finds bugs, at a cost, and is no source of chance
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        switches.fill_uninitialized_memory = before[1]
        torch.backends.cudnn.benchmark = benchmark
