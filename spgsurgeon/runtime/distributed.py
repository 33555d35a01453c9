"""This process among those that `torchrun` started, and what they do together. One process needs none of it."""

from __future__ import annotations

import os
import re
import resource
import sys
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from spgsurgeon.errors import SurgeonError, UsageError, first_line
from spgsurgeon.runtime.signals import InterruptedRunError

MEETING_TIME = timedelta(minutes=5)
"""How long processes wait for each other at the start: `torchrun` starts them together."""
WAITING_TIME = timedelta(minutes=30)
"""How long one waits for the others in a run: compiling, writing a checkpoint or a slow disk hold up one alone."""


class LostProcessError(SurgeonError):
    """Another process of the run has ended, or does not answer."""

    kind = "lost-process"


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

    def alike(self, text: str) -> bool:
        """Return whether all processes hold the same text."""
        number = zlib.crc32(text.encode())
        return self.largest(number) == -self.largest(-number)

    def share_buffers(self, module: nn.Module) -> None:
        """Give every process rank 0's buffers: running statistics differ between ranks after a step."""
        if self.world_size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until every process is here."""
        if self.world_size > 1:
            dist.barrier()


def processes_of_run() -> int:
    """Return how many processes `torchrun` started for this run, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def join_processes(device: str = "auto") -> Iterator[Processes]:
    """Join the group that `torchrun`'s environment describes, if any, and leave it at the end.

    Raises UsageError if `device` is not there, LostProcessError where another process ends before the body does.
    """
    chosen = choose_device(device)
    world_size = processes_of_run()
    if world_size == 1:
        with current_device(chosen):
            yield Processes(0, 1, chosen)
        return
    _check_environment()
    if chosen.type == "cuda":
        chosen = _own_cuda_device()
    group = _meet(world_size, "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo")
    try:
        yield Processes(dist.get_rank(), world_size, chosen)
    except InterruptedRunError:  # all of them leave, after the same step
        raise
    except BaseException as error:
        with suppress(Exception):  # to leave in good order may mean to wait for those that have ended
            group.abort()
        if _tells_of_a_lost_process(error):
            raise _lost("another process of this run has ended; its own message says why", error) from error
        raise
    finally:
        with suppress(RuntimeError):
            dist.destroy_process_group()


def known_to_torchrun(name: str) -> bool:
    """Whether an earlier attempt of this `torchrun` job, which it restarted since, told it this name."""
    store = _torchrun_store()
    return store is not None and store.check([name])


def tell_torchrun(name: str) -> None:
    """Let later attempts of this `torchrun` job know the name; without `torchrun` there are none."""
    if store := _torchrun_store():
        store.set(name, "")


def _torchrun_store() -> Store | None:
    """Return what `torchrun` keeps of a job from its start to its end, restarts included; None without `torchrun`."""
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return None
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(host, port, is_master=False, wait_for_workers=False)


def _meet(world_size: int, backend: str) -> dist.ProcessGroup:
    rank = int(os.environ["RANK"])
    try:
        store = _torchrun_store()
        if store is not None:  # it still holds the addresses of the processes of the attempts before this one
            store = PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
            store.set(f"here-{rank}", "")
            store.wait([f"here-{other}" for other in range(world_size)], MEETING_TIME)  # gloo would wait as in a run
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size, timeout=WAITING_TIME)
    except RuntimeError as error:
        raise _lost(f"the {world_size} processes of this run did not find each other", error) from error
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def _lost(message: str, error: BaseException) -> LostProcessError:
    """Return the error with what torch said to it: gloo puts a line of its source before that and advice behind."""
    said = re.sub(r"^(.*)\[/\S+:\d+\] ", r"\1", first_line(error)).partition(". This is")[0]
    return LostProcessError(message, hint=f"what torch.distributed says: {said}")


def _tells_of_a_lost_process(error: BaseException) -> bool:
    """Return whether torch noticed that a process is gone. Gloo's errors have no type of their own, only a text."""
    if isinstance(error, dist.DistError):
        return True
    text = str(error) if isinstance(error, RuntimeError) else ""
    return "gloo/transport" in text and any(sign in text for sign in _GONE)


_GONE = ("closed by peer", "reset by peer", "Broken pipe", "Read error", "Read timeout", "Timed out", "pair closure")


def _check_environment() -> None:
    """Raise UsageError if a process is told of others, and not how to find them."""
    missing = [name for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if missing:
        raise UsageError(
            f"the environment has WORLD_SIZE={os.environ['WORLD_SIZE']}, but no {', '.join(missing)}",
            hint="several processes are started by torchrun; for one, unset WORLD_SIZE",
        )


def _own_cuda_device() -> torch.device:
    """Return the device of this process: each one of a machine has its own."""
    there, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > there:
        raise UsageError(
            f"{here} processes, and {there} CUDA devices here: each needs its own",
            hint=f"torchrun --nproc-per-node {there}, or training.device=cpu",
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


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


def current_device(device: torch.device) -> AbstractContextManager[object]:
    """Return the context in which a CUDA device is torch's current one, which pinned memory, for one, goes by."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


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


def forget_peak_memory(device: torch.device) -> None:
    """Let the peak on a CUDA device be that from now on; that of resident memory is from the process's start."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory(device: torch.device) -> int:
    """Return the most bytes this process held: on a CUDA device its allocator's, else resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
