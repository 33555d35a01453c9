"""This process among those that `torchrun` started, and what they do together. One process needs none of it."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spgsurgeon.errors import UsageError


@dataclass(frozen=True)
class Processes:
    """`rank` of `world_size` data-parallel processes, and the device this one computes on."""

    rank: int
    world_size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes files and speaks."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over processes."""
        if self.world_size > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean over processes."""
        return self.sum(tensor) / self.world_size

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """Return every process's tensor, by rank; all are of one shape."""
        if self.world_size == 1:
            return [tensor]
        everyone = [torch.empty_like(tensor) for _ in range(self.world_size)]
        dist.all_gather(everyone, tensor)
        return everyone

    def joined(self, entries: dict[str, str]) -> dict[str, str]:
        """Return the entries of all processes."""
        if self.world_size == 1:
            return entries
        everyone: list[dict[str, str]] = [{}] * self.world_size
        dist.all_gather_object(everyone, entries)
        return {key: value for own in everyone for key, value in own.items()}

    def largest(self, number: int) -> int:
        """Return the largest of the processes' numbers, without waiting for their devices."""
        if self.world_size > 1:
            everyone = torch.tensor(number)
            dist.all_reduce(everyone, dist.ReduceOp.MAX)
            number = int(everyone)
        return number

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process rank 0's buffers: running statistics differ between ranks after a step."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the group that `torchrun`'s environment describes, if any, and leave it at the end.

    Raises UsageError where `device` is not there.
    """
    chosen = choose_device(device)
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    dist.init_process_group("cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world_size, chosen)
    finally:
        dist.destroy_process_group()


def choose_device(device: str) -> torch.device:
    """Return the device of that name; `auto` is CUDA, else MPS, else the CPU. Raises UsageError if it is missing."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if device == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    wanted = torch.device(device)
    there = {"cpu": True, "cuda": cuda, "mps": mps}.get(wanted.type, False)
    if there and wanted.type == "cuda" and wanted.index is not None:
        there = wanted.index < torch.cuda.device_count()
    if not there:
        raise UsageError(f"there is no device {device!r} here", hint="device=auto takes the best there is")
    return wanted


def choose_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the autocast type; `auto` is bfloat16 on a CUDA device that has it, else float32 (no autocast)."""
    if precision == "auto":
        has_bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float32
    types = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return types[precision]


def autocast(device: torch.device, precision: torch.dtype) -> torch.autocast:
    """Return the context of forward passes in that precision."""
    enabled = precision != torch.float32
    return torch.autocast(device.type, dtype=precision if enabled else torch.bfloat16, enabled=enabled)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Return the type to add many numbers up in: float64, but float32 on MPS devices, which have no other."""
    return torch.float32 if device.type == "mps" else torch.float64


def peak_memory(device: torch.device) -> int:
    """Return the most bytes this process held: on a CUDA device its allocator's, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
