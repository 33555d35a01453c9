"""What torch can compute on here, and how its processes can talk to each other. torch is imported when it is asked.

Only what torch does not say is ours: whether a device computes, and why there is none. `torch.utils.collect_env` asks
the driver by running nvidia-smi, which containers often lack and which a broken driver can hang.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

from spgsurgeon.runtime.checks import Check, in_a_line
from spgsurgeon.runtime.resources import free_memory


def thread_check(usable: int) -> Check:
    """Return whether torch's threads fit the `usable` processors."""
    import torch

    threads = torch.get_num_threads()
    if threads <= usable:
        return Check("threads", "ok", f"torch uses {threads} of {usable} usable processors")
    message = f"torch uses {threads} threads on {usable} usable processors, which is slower than {usable}"
    return Check("threads", "warning", message, f"export OMP_NUM_THREADS={usable}")


def accelerators() -> tuple[list[dict[str, Any]], list[Check]]:
    """Return torch's accelerators, each tried with a small computation, and what is to be said about them."""
    import torch

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        there = torch.cuda.is_available()
        devices, checks = _cuda_devices() if there else ([], [_no_cuda([str(w.message) for w in said])])
    if there:  # such as: this torch was not compiled for so old, or so new, a device
        checks += [Check("cuda", "warning", _one_line(str(w.message))) for w in said]
    if torch.backends.mps.is_available():
        devices.append({"type": "mps", "name": "Apple GPU"})
        checks.append(Check("mps", "ok", "the Apple GPU is available"))
    return devices, checks


def distributed_check(cuda_devices: int) -> Check:
    """Return which backends torchrun's processes can talk by; NCCL matters where there are several CUDA devices."""
    import torch.distributed as dist

    if not dist.is_available():
        return Check("distributed", "warning", "this torch has no distributed part", "train in one process")
    backends = [name for name, there in (("gloo", dist.is_gloo_available), ("nccl", dist.is_nccl_available)) if there()]
    if "gloo" not in backends or (cuda_devices > 1 and "nccl" not in backends):
        lacking = "gloo" if "gloo" not in backends else "nccl"
        return Check("distributed", "warning", f"no {lacking}: torchrun can't be used here", "train in one process")
    return Check("distributed", "ok", ", ".join(backends))


def _cuda_devices() -> tuple[list[dict[str, Any]], list[Check]]:
    import torch

    devices, checks = [], []
    for index in range(torch.cuda.device_count()):
        name = torch.cuda.get_device_name(index)
        try:
            with torch.cuda.device(index):
                torch.ones(8, device="cuda").sum().item()
                devices.append(_description(index, name))
        except RuntimeError as error:  # out of memory is one of them
            hint = "see what else runs on it (nvidia-smi); a torch for another CUDA version may be needed"
            checks.append(Check(f"cuda:{index}", "problem", f"{name} does not compute: {in_a_line(error)}", hint))
            continue
        checks.append(Check(f"cuda:{index}", "ok", f"{name} computes"))
    return devices, checks


def _description(index: int, name: str) -> dict[str, Any]:
    """Return what torch says of the CUDA device in use; memory is in bytes."""
    import torch

    free, total = torch.cuda.mem_get_info()
    capability = "{}.{}".format(*torch.cuda.get_device_capability())
    bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return {
        "type": "cuda",
        "index": index,
        "name": name,
        "memory_total": total,
        "memory_free": free,
        "capability": capability,
        "bfloat16": bfloat16,
    }


def _no_cuda(said: list[str]) -> Check:
    """Return why torch sees no CUDA device; `said` is what it warned of when it was asked."""
    import torch

    driver, built = _nvidia_driver(), torch.version.cuda
    if driver is None:
        return Check("cuda", "ok", "there is no NVIDIA driver here")
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return Check("cuda", "ok", "CUDA_VISIBLE_DEVICES hides the NVIDIA devices of this machine")
    if built is None:
        message = f"there is an NVIDIA driver ({driver}), but torch {torch.__version__} was built without CUDA"
        return Check(
            "cuda", "warning", message, "install a CUDA build of torch and torchvision: pytorch.org/get-started"
        )
    words = f": {_one_line(said[-1])}" if said else ""
    message = f"torch was built for CUDA {built} but can't use the NVIDIA driver ({driver}){words}"
    return Check("cuda", "problem", message, "update the driver, or install a torch built for an older CUDA")


def _nvidia_driver() -> str | None:
    """Return what the kernel says of its NVIDIA driver, without asking the driver itself; None if there is none."""
    try:
        return Path("/proc/driver/nvidia/version").read_text().partition("\n")[0].removeprefix("NVRM version:").strip()
    except OSError:
        devices = sorted(Path("/dev").glob("nvidia[0-9]*"))
        return f"{devices[0]} exists" if devices else None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def free_on(device: Any) -> int | None:
    """Return the bytes that a torch.device has left for tensors; None if that can't be told."""
    import torch

    if device.type == "cuda":
        own = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch keeps it for later
        return torch.cuda.mem_get_info(device)[0] + own
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    return free_memory() if device.type == "cpu" else None
