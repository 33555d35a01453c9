"""What this machine offers besides accelerators: processors, memory, and the folders pretrained weights are kept in.

Control groups are read here: psutil, os.process_cpu_count and torch.utils.collect_env all give the machine's processors
and memory, of which a container or a batch job may have a small part, and loaders that go by them run out of it.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from spgsurgeon.runtime.checks import Check

_CGROUPS = Path("/sys/fs/cgroup")
_SHARED_MEMORY = Path("/dev/shm")
_ENOUGH_SHARED_MEMORY = 2**30  # bytes; Docker gives 64 MiB, which a few prefetched batches overflow
_ENOUGH_FREE_DISK = 2 * 10**9  # bytes; the largest weights of timm and torchvision that are common are about that
_COUNTED_FILES = 50_000


def processors() -> dict[str, Any]:
    """Return the processors this process may use (`count`; the machine has `total`) and its memory, in bytes.

    Affinity and control groups (containers, batch systems) count; what can't be read is None.
    """
    total = os.cpu_count() or 1
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    count = max(1, min(allowed, int(_processor_quota() or allowed)))
    memory_total, memory_free = _memory()
    return {
        "type": "cpu",
        "name": platform.processor() or platform.machine(),
        "count": count,
        "total": total,
        "memory_total": memory_total,
        "memory_free": memory_free,
    }


def default_workers() -> int:
    """Return how many loader workers suit this process: its share of the processors it may use, between 1 and 8."""
    count: int = processors()["count"]
    return max(1, min(8, count // processes_here()))


def processes_here() -> int:
    """Return how many processes of this run `torchrun` started on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def free_memory() -> int | None:
    """Return the bytes of this machine's memory that can still be had; None if the system does not say."""
    return _memory()[1]


def shared_memory_check() -> Check | None:
    """Return whether loader processes can hand over batches; None if the system has no such file system."""
    if not _SHARED_MEMORY.is_dir():
        return None
    size = shutil.disk_usage(_SHARED_MEMORY).total
    if size >= _ENOUGH_SHARED_MEMORY:
        return Check("shared memory", "ok", f"{size / 2**30:.1f} GiB")
    message = f"{size / 2**20:.0f} MiB in {_SHARED_MEMORY}: loader processes may die of a bus error"
    return Check("shared memory", "warning", message, "docker run --shm-size=8g, or data.workers=0")


def caches() -> list[dict[str, Any]]:
    """Return the cache folders, each with what it takes and what its disk has left, in bytes.

    `size` counts a bounded number of files; `size_complete` says whether those were all. A cache whose library does
    not import is left out.
    """
    found = []
    for name, path_of in _CACHES.items():
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                path = path_of()
        except Exception:  # the check of that library's import says why
            continue
        size, complete = _size(path)
        place = next(parent for parent in (path, *path.parents) if parent.exists())
        found.append(
            {
                "name": name,
                "path": str(path),
                "exists": path.exists(),
                "writable": place.is_dir() and os.access(place, os.W_OK | os.X_OK),
                "size": size,
                "size_complete": complete,
                "free": shutil.disk_usage(place).free,
            }
        )
    return found


def cache_checks(rows: list[dict[str, Any]]) -> Iterator[Check]:
    """Yield whether pretrained weights can be kept in each of the `rows` of `caches`."""
    for row in rows:
        name, path = f"{row['name']} cache", row["path"]
        variable = _CACHE_VARIABLES[row["name"]]
        if not row["writable"]:
            message = f"{path} can't be written to: pretrained weights can't be downloaded"
            yield Check(name, "warning", message, f"make it writable, or set {variable} to a folder that is")
        elif row["free"] < _ENOUGH_FREE_DISK:
            message = f"{path}: its disk has {row['free'] / 1e9:.1f} GB left"
            yield Check(name, "warning", message, f"make room, or set {variable} to a folder on another disk")
        else:
            yield Check(name, "ok", path if row["exists"] else f"{path} (made when it is first needed)")


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


def _torch_cache() -> Path:
    from torch.hub import get_dir

    return Path(get_dir(), "checkpoints")


_CACHES: dict[str, Callable[[], Path]] = {"Hugging Face": _hub_cache, "torch": _torch_cache}
_CACHE_VARIABLES = {"Hugging Face": "HF_HOME", "torch": "TORCH_HOME"}


def _processor_quota() -> float | None:
    """Return how many processors' worth of time the control groups allow, rounded up; None for no limit."""
    quotas = []
    for text in _control("cpu.max"):  # version 2: "max 100000" or "150000 100000"
        quota, _, period = text.partition(" ")
        quotas += [int(quota) / int(period)] if quota != "max" else []
    for quota, period in zip(_control("cpu.cfs_quota_us", "cpu"), _control("cpu.cfs_period_us", "cpu"), strict=False):
        quotas += [int(quota) / int(period)] if int(quota) > 0 else []
    return -(-min(quotas) // 1) if quotas else None


def _memory() -> tuple[int | None, int | None]:
    """Return the memory of this machine, or of the control groups where they allow less, and what of it is free."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        sizes = {key: int(value.split()[0]) * 1024 for key, _, value in (line.partition(":") for line in lines)}
        total, free = sizes["MemTotal"], sizes["MemAvailable"]
    except (OSError, KeyError, ValueError, IndexError):
        names = os.sysconf_names if hasattr(os, "sysconf_names") else {}
        pages = os.sysconf("SC_PHYS_PAGES") if "SC_PHYS_PAGES" in names else None
        return (pages * os.sysconf("SC_PAGE_SIZE") if pages else None), None
    for controller, limit_file, usage_file in _MEMORY_FILES:
        for group in _groups(controller):
            limit = _number(group / limit_file)
            if limit is not None:
                total = min(total, limit)
                free = min(free, limit - (_number(group / usage_file) or 0) + _kept_of_files(group))
    return total, max(0, min(free, total))


# Version 2 of control groups, and version 1.
_MEMORY_FILES = (("", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"))


def _kept_of_files(group: Path) -> int:
    """Return the bytes of files that are kept in a group's memory and go where they are in the way."""
    lines = (_text(group / "memory.stat") or "").splitlines()
    sizes = dict(line.split(" ", 1) for line in lines if " " in line)
    return int(sizes.get("total_inactive_file", sizes.get("inactive_file", "0")))


def _control(file: str, controller: str = "") -> list[str]:
    """Return the `file` of every control group this process is in, outer ones too; a controller's name: version 1."""
    return [text for group in _groups(controller) if (text := _text(group / file)) is not None]


def _groups(controller: str) -> list[Path]:
    """Return the folders of the control groups this process is in, outer ones too; a controller's name: version 1."""
    lines = (_text(Path("/proc/self/cgroup")) or "").splitlines()
    found = []
    for _, controllers, path in (line.split(":", 2) for line in lines):
        if controller in controllers.split(","):
            group = Path(path.lstrip("/"))
            found += [_CGROUPS / controller / parent for parent in dict.fromkeys([group, *group.parents])]
    return found


def _number(path: Path) -> int | None:
    """Return the number in a file; None if there is no such file, or no number in it ("max")."""
    text = _text(path)
    return int(text) if text is not None and text.isdigit() else None


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _size(folder: Path) -> tuple[int, bool]:
    """Return the bytes of the files below a folder, links not followed, and whether all of them were counted."""
    size, count = 0, 0
    for parent, _, names in os.walk(folder):
        for name in names:
            count += 1
            if count > _COUNTED_FILES:
                return size, False
            try:
                size += os.lstat(os.path.join(parent, name)).st_size
            except OSError:  # gone meanwhile
                continue
    return size, True
