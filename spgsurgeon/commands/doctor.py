"""`spgsurgeon doctor`: whether this installation and this machine can do the work, and what to do where not."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from typing import Any

from spgsurgeon.runtime import (
    Check,
    accelerators,
    cache_checks,
    caches,
    combination_checks,
    distributed_check,
    import_checks,
    packages,
    processors,
    shared_memory_check,
    thread_check,
    version_checks,
)

# What changes where weights come from, what computes, and how fast. No credentials, and no proxies: they hold some.
_VARIABLES = (
    *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME", "XDG_CACHE_HOME"),
    *("TIMM_USE_OLD_CACHE", "TIMM_FUSED_ATTN", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_LAUNCH_BLOCKING", "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"),
    *("CUBLAS_WORKSPACE_CONFIG", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
)
_YES = ("1", "on", "yes", "true", "y")


def doctor() -> dict[str, Any]:
    """Return the document of `doctor --json`; its `exit_code` is 1 where a check found a problem, else 0.

    Packages that are missing or broken are findings, torch among them. Nothing is downloaded or written.
    """
    rows, processor = packages(), processors()
    checks = [*version_checks(rows), *combination_checks(), *import_checks()]
    cache_rows = caches()
    devices = [processor]
    if any(check.name == "import torch" and check.status == "ok" for check in checks):
        others, found = accelerators()
        devices += others
        cuda_devices = sum(device["type"] == "cuda" for device in others)
        checks += [*found, thread_check(processor["count"]), distributed_check(cuda_devices)]
    shared_memory = shared_memory_check()
    checks += [*([shared_memory] if shared_memory else []), *cache_checks(cache_rows), *_environment_checks()]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": rows,
        "devices": devices,
        "caches": cache_rows,
        "environment": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "checks": [check.to_json() for check in checks],
        "exit_code": int(any(check.status == "problem" for check in checks)),
    }


def _environment_checks() -> Iterator[Check]:
    """Yield what variables that are set will do to a later command."""
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if _is_set(name):
            yield Check("network", "ok", f"{name} is set: weights of the Hugging Face Hub come from the cache only")
            break
    if _is_set("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"):
        message = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD lets other programs' torch.load run code from the files it reads"
        yield Check("environment", "warning", message, "unset it")
    if _is_set("CUDA_LAUNCH_BLOCKING"):
        yield Check("environment", "warning", "CUDA_LAUNCH_BLOCKING makes every computation wait", "unset it")


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").lower() in _YES
