"""How many runs of a comparison go on at a time, and which device each of their processes has."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import torch

from spgsurgeon.runtime import choose_device, processors

VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Placement:
    """`jobs` runs at a time. `devices` are those they compute on, as torch calls them here: "cuda:1", "cpu", "mps".

    `visible` has for each process what its CUDA_VISIBLE_DEVICES is set to; it is empty if they see what this one sees.
    """

    jobs: int
    devices: list[str]
    visible: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def place(device: str, jobs: int | None = None) -> Placement:
    """Return how runs by a recipe with `training.device` are placed; `jobs` is how many at a time, if that was asked.

    By default there is a run for each CUDA device, one on an Apple GPU or a device with a number, and one for each core
    of the CPU that this process may use. More jobs than devices share them in turn. Raises UsageError if the device is
    not there.

    A process sees its own device alone. So it is "cuda:0" to every run, and neither seeds nor checkpoints nor scores
    tell which process did a run. Only devices of one kind take part, as others round otherwise.
    """
    chosen = choose_device(device)
    if chosen == torch.device("cuda"):  # no number names one of them
        return _on_cuda(jobs)
    return Placement(jobs or (processors()["count"] if chosen.type == "cpu" else 1), [str(chosen)])


def _on_cuda(jobs: int | None) -> Placement:
    kinds = [_kind(index) for index in range(torch.cuda.device_count())]
    alike = [index for index, kind in enumerate(kinds) if kind == kinds[0]]
    jobs = jobs or len(alike)
    if jobs == 1:  # in this process, on its current device
        current = torch.cuda.current_device() if torch.cuda.is_initialized() else 0
        return Placement(1, [f"cuda:{current}"], notes=_idle(kinds, jobs))
    names = _names(len(kinds))
    visible = [names[alike[job % len(alike)]] for job in range(jobs)]
    return Placement(jobs, [f"cuda:{index}" for index in alike[:jobs]], visible, _idle(kinds, jobs))


def _kind(index: int) -> tuple[str, tuple[int, int]]:
    return torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)


def _idle(kinds: list[tuple[str, tuple[int, int]]], jobs: int) -> list[str]:
    """Return what is to be said of devices that are of another kind than the first, if runs could have had them."""
    others = [f"cuda:{index} ({kind[0]})" for index, kind in enumerate(kinds) if kind != kinds[0]]
    if not others or jobs < len(kinds) - len(others):
        return []
    return [f"no run is on {', '.join(others)}: only devices like cuda:0 ({kinds[0][0]}) take part"]


def _names(count: int) -> list[str]:
    """Return what CUDA_VISIBLE_DEVICES calls each of the `count` devices that this process sees."""
    given = os.environ.get(VISIBLE)
    return [name.strip() for name in given.split(",")][:count] if given else [str(index) for index in range(count)]
