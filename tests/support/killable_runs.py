"""Runs of a second in forked processes that show where they are, so that they can be killed anywhere."""

from __future__ import annotations

import json
import mmap
import multiprocessing
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.utils.tensorboard  # here once, not in every process
from launches import free_port
from tiny_runs import (
    EVERYTHING,
    SETTINGS,
    Watcher,
    changed,
    metrics_of,
    scores_of,
    tiny_grafted,
    tiny_retraining,
    tiny_run_folder,
    weights_hash,
)

from spgsurgeon.recipe.schema import Recipe
from spgsurgeon.recipe.training_section import CheckpointSection
from spgsurgeon.runs.checkpoints import newest_intact
from spgsurgeon.runs.folder import RunFolder
from spgsurgeon.runs.saving import CheckpointSaver
from spgsurgeon.runtime.distributed import join_processes
from spgsurgeon.training.loop import Retraining

PHASES = ("start", "cold start", "training", "evaluation", "end")
FORK = multiprocessing.get_context("fork")


@dataclass(frozen=True)
class Kind:
    """Runs that end alike, and how large a share of all runs they are."""

    settings: Recipe
    steps: int
    share: int
    dropout: float = 0.0
    processes: int = 1


KINDS = {
    "everything": Kind(EVERYTHING, 12, 4),
    "dropout": Kind(EVERYTHING, 12, 2, dropout=0.3),
    "plain SGD": Kind(changed(SETTINGS, epochs=3), 18, 2),
    "two processes": Kind(EVERYTHING, 12, 2, processes=2),
}


@dataclass(frozen=True)
class Draw:
    """What must not change how a run ends. Steps between two checkpoints, checkpoints to keep, loader workers."""

    every: int
    keep: int
    workers: int


class Board:
    """Where a run is, in memory that outlives it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 3)

    def clear(self) -> None:
        """Be that of a run that is about to start."""
        self._memory[:] = bytes(3)

    @property
    def phase(self) -> str:
        """One of PHASES."""
        return PHASES[self._memory[0]]

    @property
    def writing(self) -> bool:
        """Whether metrics or a checkpoint are being written."""
        return bool(self._memory[1])

    @property
    def step(self) -> int:
        """The last step that was done."""
        return self._memory[2]

    @step.setter
    def step(self, step: int) -> None:
        self._set(2, step)

    def follow(self) -> Watcher:
        """Let this process write here; return what the run has to tell of its steps."""
        for name, phase in (("_cold_epoch", 1), ("_training_epoch", 2), ("_evaluate", 3), ("close", 4)):
            setattr(Retraining, name, self._during(getattr(Retraining, name), 0, phase))
        CheckpointSaver.finish = self._during(CheckpointSaver.finish, 0, 4)  # type: ignore[method-assign]
        for name in ("add_metrics", "save"):  # in the thread that writes
            setattr(RunFolder, name, self._during(getattr(RunFolder, name), 1, 1))
        return Watcher(lambda step: self._set(2, step))

    def end(self) -> None:
        """Note that the run is over."""
        self._set(0, len(PHASES) - 1)

    def _set(self, place: int, value: int) -> None:
        self._memory[place] = value

    def _during(self, function: Callable[..., Any], place: int, value: int) -> Callable[..., Any]:
        def noted(*arguments: Any, **options: Any) -> Any:
            before = self._memory[place]
            self._set(place, value)
            try:
                return function(*arguments, **options)
            finally:
                self._set(place, before)

        return noted


def start(folder: Path, kind: Kind, draw: Draw, board: Board) -> list[BaseProcess]:
    """Start or resume the run in `folder`, in a process group of its own, led by the first of its processes."""
    board.clear()
    (folder / "result.json").unlink(missing_ok=True)
    arguments = (folder, kind, draw, board, (folder / "run").exists(), free_port() if kind.processes > 1 else 0)
    started: list[BaseProcess] = []
    for rank in range(kind.processes):
        process = FORK.Process(target=_run, args=(rank, started[0].pid if started else 0, *arguments))
        process.start()
        assert process.pid
        with suppress(OSError):  # both sides do it, whoever comes first
            os.setpgid(process.pid, started[0].pid or 0 if started else process.pid)
        started.append(process)
    return started


def _run(
    rank: int, group: int | None, folder: Path, kind: Kind, draw: Draw, board: Board, started: bool, port: int
) -> None:
    with suppress(OSError):
        os.setpgid(0, group or 0)
    log = os.open(folder / f"stderr-{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 2)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    torch.set_num_threads(1)
    if kind.processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": kind.processes, "MASTER_PORT": port}
        os.environ |= {key: str(value) for key, value in place.items()} | {"MASTER_ADDR": "localhost"}
    train(folder, kind, draw, board, started=started)


def train(folder: Path, kind: Kind, draw: Draw, board: Board, *, started: bool) -> None:
    """Do what `spgsurgeon train --resume` does, and write what came out to result.json."""
    path = folder / "run"
    with join_processes("cpu") as processes:
        checkpoint = newest_intact(path, _refuse) if started else None
        retraining = tiny_retraining(
            changed(kind.settings, checkpoints=CheckpointSection(steps=draw.every)),
            grafted=tiny_grafted(seed=99 if checkpoint else 0, dropout=kind.dropout),  # nothing of another model stays
            processes=processes,
            batch_size=4 // processes.world_size,
            workers=draw.workers,
            progress=board.follow() if processes.leads else Watcher(),
        )
        run = retraining.run_folder = tiny_run_folder(path, draw.keep, create=processes.leads and not started)
        try:
            if checkpoint is not None:
                retraining.resume(checkpoint)
                board.step = retraining.counters.step
            if processes.leads:
                run.add_start({"step": retraining.counters.step})
            processes.wait()
            retraining.run()
        finally:
            retraining.close()
        if processes.leads:
            board.end()
            found = {"weights": weights_hash(retraining), "metrics": metrics_of(path), "scores": scores_of(retraining)}
            (folder / "result.json").write_text(json.dumps(found))


def _refuse(text: str) -> None:
    """A kill may lose a checkpoint that is not finished; it must not leave a damaged one."""
    raise AssertionError(text)
