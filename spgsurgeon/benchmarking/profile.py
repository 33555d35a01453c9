"""What a training step runs and takes: operators, kernels, allocations, memory."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from spgsurgeon.benchmarking.arms import Arm, wait_for
from spgsurgeon.exporting import silenced
from spgsurgeon.training import kept_for_backward

_MEMORY = "[memory]"
_TRACED = {"cpu": 0, "cuda": 1}  # how torch's profiler numbers the devices whose memory it watches


@dataclass(frozen=True)
class StepProfile:
    """One step: calls of torch's operators, CUDA kernels, allocations on the device.

    Kernels are None on other devices, and where the system does not let the profiler see them. `peak_bytes` is the most
    that was allocated at once, above what was there before it.
    """

    operators: int
    kernels: int | None
    allocations: int
    peak_bytes: int


def profile_step(step: Callable[[], object], device: torch.device) -> StepProfile:
    """Return what the profiler of torch sees of a step, which must free what it does not keep, and wait."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        with silenced():  # without a GPU, a profiler that was built for one says so on stderr
            with profile(activities=activities, profile_memory=True) as profiler:
                step()
            profiler.export_chrome_trace(str(path))
        events: list[dict[str, Any]] = json.loads(path.read_text())["traceEvents"]
    memory = [e for e in events if e["name"] == _MEMORY and e["args"]["Device Type"] == _TRACED.get(device.type)]
    changes = [event["args"]["Bytes"] for event in sorted(memory, key=lambda event: event["ts"])]
    return StepProfile(
        operators=sum(e.get("cat") == "cpu_op" and e["name"].startswith("aten::") for e in events),
        kernels=sum(e.get("cat") == "kernel" for e in events) or None,
        allocations=sum(change > 0 for change in changes),
        peak_bytes=max(accumulate(changes), default=0),
    )


def measure(arm: Arm) -> dict[str, Any]:
    """Return the document of an arm that has taken its first steps: counts and bytes of a step.

    `peak_memory_bytes` is what the arm takes at the height of a step, weights, gradients and optimizer's state
    included, images and other arms left out: what it holds between steps, and above that on a CUDA device the peak of
    torch's allocator, on a CPU the most that torch had allocated in the step and not freed, which leaves out what other
    libraries allocate by themselves. None on other devices.
    `kept_for_backward_bytes` is what the graph of a forward pass holds, counted; None if it is compiled.
    """
    cuda = arm.device.type == "cuda"
    arm.optimizer.zero_grad(set_to_none=True)
    if cuda:
        before = torch.cuda.memory_allocated(arm.device)
        torch.cuda.reset_peak_memory_stats(arm.device)
        arm.run(1)
        above: int | None = torch.cuda.max_memory_allocated(arm.device) - before
        arm.optimizer.zero_grad(set_to_none=True)
    counted = profile_step(lambda: arm.run(1), arm.device)
    if not cuda:
        above = counted.peak_bytes if arm.device.type == "cpu" else None
    kept = None if arm.compiled else kept_for_backward(arm.forward, arm.model)
    arm.optimizer.zero_grad(set_to_none=True)
    wait_for(arm.device)
    return {
        "peak_memory_bytes": None if above is None else arm.held_bytes() + above,
        "kept_for_backward_bytes": kept,
        "replica_bytes": arm.replica_bytes(),
        "operators_per_step": counted.operators,
        "kernels_per_step": counted.kernels,
        "allocations_per_step": counted.allocations,
    }
