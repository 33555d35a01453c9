"""The folder of a run: its recipe, a line of metrics an epoch, TensorBoard events, and checkpoints to resume from.

A checkpoint is a grafted folder (`best` and `last` are links to such) with the optimizer, the moving average and the
counters beside it. No file in it is a pickle.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from spgsurgeon.checkpoint.folders import (
    GraftManifest,
    best_of,
    read_grafted_folder,
    read_manifest,
    read_state,
    write_grafted_folder,
)
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.sealing import sealed
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.checkpoint.writing import atomic_file, atomic_folder, write_failures, write_json, write_safetensors
from spgsurgeon.errors import DamagedFileError, UsageError

_RECIPE, _METRICS, _STATE = "recipe.yaml", "metrics.jsonl", "state.json"
_EXTRAS = ("optimizer", "ema")


@dataclass
class Checkpoint:
    """All that training goes on from. `state` is plain data; `ema` is the averaged base's state dict, or empty."""

    base: Mapping[str, Tensor]
    temporary: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]
    ema: Mapping[str, Tensor] = field(default_factory=dict)


class RunFolder:
    """One run on disk. `config` and `manifest` describe the grafted model in every checkpoint."""

    def __init__(self, path: Path, config: Mapping[str, Any], manifest: GraftManifest) -> None:
        self.path = path
        self._config = config
        self._manifest = manifest
        self._board: Any = None

    def create(self, recipe: str, *, force: bool = False) -> None:
        """Make the folder with its resolved recipe. Raises UsageError where it exists."""
        with atomic_folder(self.path, force=force) as folder:
            (folder / _RECIPE).write_text(recipe, encoding="utf-8")

    def discard_unstarted(self) -> None:
        """Remove the folder if there is no checkpoint in it yet: it would only be in the way of the next try."""
        self.close()
        if self.path.is_dir() and last_of(self.path) is None:
            shutil.rmtree(self.path)

    def save(self, name: str, checkpoint: Checkpoint, *, best: bool) -> None:
        """Write the checkpoint as `checkpoints/NAME`, point `last` (and `best`) to it, drop what nothing points to."""
        name = self._unpointed(name)
        with atomic_folder(self.path / "checkpoints" / name, force=True) as folder:
            write_grafted_folder(
                folder,
                base=checkpoint.base,
                temporary=checkpoint.temporary,
                config=self._config,
                manifest=self._manifest,
            )
            hashes = {}
            for extra in _EXTRAS:
                if tensors := getattr(checkpoint, extra):
                    write_safetensors(folder / f"{extra}.safetensors", tensors)
                    hashes[extra] = content_hash(tensors)
            write_json(folder / _STATE, sealed({**checkpoint.state, "hashes": hashes}))
        # `best` first: killed in between, a run resumes from the older `last` and comes to the same best once more.
        for pointer in ("best", "last") if best else ("last",):
            _point(self.path / pointer, Path("checkpoints") / name)
        self._drop_others()

    def load(self) -> Checkpoint | None:
        """Return the last checkpoint, verified by its hashes; None where the run has none yet."""
        folder = last_of(self.path)
        if folder is None:
            return None
        state = read_state(folder)
        grafted = read_grafted_folder(folder)  # its moving average is as it was, if there is one
        return Checkpoint(
            base=read_safetensors(grafted.base_weights)[0],
            temporary=read_safetensors(grafted.temporary_weights)[0],
            optimizer=self._read_optimizer(folder, state["hashes"].get("optimizer")),
            state=state,
            ema=read_safetensors(folder / "ema.safetensors")[0] if "ema" in state["hashes"] else {},
        )

    def best_content_hash(self) -> str:
        """Return the content hash of the best checkpoint's base weights: the averaged ones where there are such."""
        folder = best_of(self.path)
        averaged: str | None = read_state(folder)["hashes"].get("ema")
        return averaged or read_manifest(folder).weights_hash

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl and the same numbers to the TensorBoard events."""
        path = self.path / _METRICS
        with write_failures(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(metrics) + "\n")
            file.flush()
            os.fsync(file.fileno())
        board = self._events(metrics["epoch"])
        for tag, value in _scalars(metrics):
            board.add_scalar(tag, value, metrics["epoch"])
        board.flush()

    def forget_metrics_from(self, epoch: int) -> None:
        """Drop the lines of epochs that a resumed run is going to run again, and those that are damaged."""
        path = self.path / _METRICS
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
        kept = [line for line in lines if _epoch_of(line) < epoch]
        if kept != lines:
            with atomic_file(path, force=True) as temporary:
                temporary.write_text("".join(line + "\n" for line in kept), encoding="utf-8")

    def close(self) -> None:
        """Close the TensorBoard writer."""
        if self._board is not None:
            self._board.close()

    def _events(self, epoch: int) -> Any:
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            # TensorBoard then shows nothing that an interrupted run said of this epoch.
            self._board = SummaryWriter(str(self.path / "tensorboard"), purge_step=epoch)
        return self._board

    def _read_optimizer(self, folder: Path, expected: str | None) -> Mapping[str, Tensor]:
        """Return the optimizer's tensors after comparing them with their hash; None is for an optimizer without."""
        if expected is None:
            return {}
        path = folder / "optimizer.safetensors"
        if not path.is_file():
            raise DamagedFileError(f"{folder} is damaged: {path.name} is missing")
        tensors = read_safetensors(path)[0]
        if content_hash(tensors) != expected:
            raise DamagedFileError(f"{path} is damaged: its content hash is not the recorded one")
        return tensors

    def _unpointed(self, name: str) -> str:
        """Return `name`, or one like it where a pointer leads there: what `last` names is there at every moment."""
        taken = {(self.path / pointer).resolve().name for pointer in ("last", "best")}
        return next(n for n in (name, f"{name}-again", f"{name}-anew") if n not in taken)

    def _drop_others(self) -> None:
        kept = {(self.path / pointer).resolve() for pointer in ("last", "best")}
        for folder in (self.path / "checkpoints").iterdir():
            if folder.resolve() not in kept:
                shutil.rmtree(folder, ignore_errors=True)


def last_of(run: Path) -> Path | None:
    """Return the folder of a run's last checkpoint, None where there is none yet.

    Raises DamagedFileError where there was one.
    """
    last = run / "last"
    if last.is_dir():
        return last.resolve()
    if last.is_symlink():
        raise DamagedFileError(f"{run} is damaged: its last checkpoint {last.readlink()} is missing")
    return None


def recipe_of(run: Path) -> str:
    """Return the resolved recipe of a run. Raises UsageError where there is none, DamagedFileError if it is no text."""
    path = run / _RECIPE
    if not path.is_file():
        raise UsageError(f"{run} is no run folder: it has no {_RECIPE}", hint="start one without --resume")
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: it is no text ({error!s:.120})") from error


def _epoch_of(line: str) -> float:
    """Return the epoch of a line of metrics; infinity for one that was cut off or is no longer JSON."""
    try:
        return float(json.loads(line)["epoch"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _point(link: Path, target: Path) -> None:
    """Make `link` a relative symbolic link to `target`, replacing an older one in one step."""
    temporary = link.with_name(f".{link.name}.tmp")
    with write_failures(link):
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target)
        os.replace(temporary, link)
        folder = os.open(link.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # before anything that the older link led to is dropped
        finally:
            os.close(folder)


def _scalars(metrics: Mapping[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Return the numbers and their tags. A list has an entry a step; within scores it has one a class, too many."""
    found: list[tuple[str, float]] = []
    for key, value in metrics.items():
        tag = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found += _scalars(value, f"{tag}/")
        elif isinstance(value, list) and not prefix:
            found += _scalars({str(i): entry for i, entry in enumerate(value)}, f"{tag}/")
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((tag, float(value)))
    return found
