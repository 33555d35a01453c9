"""The folder of a run: its recipe, a line of metrics an epoch, TensorBoard events, and checkpoints to resume from.

A checkpoint is a grafted folder (`best` and `last` are links to such) with the optimizer, the moving average and the
counters beside it. No file in it is a pickle.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from glob import escape
from pathlib import Path
from typing import Any

from torch import Tensor

from spgsurgeon.checkpoint.folders import (
    GraftManifest,
    best_of,
    check_weights,
    read_grafted_folder,
    read_json_object,
    read_manifest,
    read_state,
    write_grafted_folder,
)
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.sealing import sealed
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.checkpoint.writing import atomic_file, atomic_folder, write_failures, write_json, write_safetensors
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.runs.metrics_log import MetricsLog

_RECIPE, _STATE = "recipe.yaml", "state.json"
_ENVIRONMENT, _UNREADABLE = "environment.json", "unreadable.json"
_EXTRAS = ("optimizer", "ema")


@dataclass
class Checkpoint:
    """All that training goes on from. `state` is plain data; `ema` is the averaged base's state dict, or empty."""

    base: Mapping[str, Tensor]
    temporary: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why pictures were passed over, for people; the run folder lists them."""


class RunFolder:
    """One run on disk. `config` and `manifest` describe the grafted model in every checkpoint.

    `companions` are the files that go with its weights, by name. `keep` is how many of the newest checkpoints stay,
    besides the best.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        manifest: GraftManifest,
        *,
        companions: Mapping[str, bytes] | None = None,
        keep: int = 2,
    ) -> None:
        self.path = path
        self._config = config
        self._manifest = manifest
        self._companions = companions
        self._keep = keep
        self._metrics = MetricsLog(path)

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
        """Write the checkpoint as `checkpoints/NAME`, point `last` (and `best`) to it, drop the oldest."""
        name = self._unpointed(name)
        with atomic_folder(self.path / "checkpoints" / name, force=True) as folder:
            write_grafted_folder(
                folder,
                base=checkpoint.base,
                temporary=checkpoint.temporary,
                config=self._config,
                manifest=self._manifest,
                companions=self._companions,
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
        if checkpoint.unreadable:
            with atomic_file(self.path / _UNREADABLE, force=True) as temporary:
                write_json(temporary, dict(sorted(checkpoint.unreadable.items())))
        self._drop_oldest()

    def load(self, folder: Path | None = None) -> Checkpoint | None:
        """Return the checkpoint in `folder`, else the last, verified by its hashes; None where there is none yet."""
        folder = folder or last_of(self.path)
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
        """Append one epoch's line; see `MetricsLog`."""
        self._metrics.add(metrics)

    def add_start(self, environment: Mapping[str, Any]) -> None:
        """Add to environment.json what a start of the run, or its resumption, stands on; drop what a kill left."""
        self._drop_unfinished()
        path = self.path / _ENVIRONMENT
        starts = []
        if path.is_file():
            with suppress(DamagedFileError):  # it is for people; nothing goes by it
                starts = read_json_object(path).get("starts", [])
        with atomic_file(path, force=True) as temporary:
            write_json(temporary, {"starts": [*starts, environment]})

    def go_back_to(self, folder: Path) -> None:
        """Make `folder` the last checkpoint; drop those of later steps, but for the best, and what a kill left.

        A kill may also have left one too many.
        """
        _point(self.path / "last", Path("checkpoints") / folder.name)
        for entry in (self.path / "checkpoints").iterdir():
            if _step_of(entry) > _step_of(folder) and entry.resolve() != (self.path / "best").resolve():
                shutil.rmtree(entry, ignore_errors=True)
        self._drop_unfinished()
        self._drop_oldest()

    def forget_metrics_after(self, cold: int, trained: int) -> None:
        """Keep the lines of so many cold and training epochs; see `MetricsLog`."""
        self._metrics.forget_after(cold, trained)

    def close(self) -> None:
        """Close what is open."""
        self._metrics.close()

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

    def _drop_unfinished(self) -> None:
        """Remove what a kill left half written; if it came while the folder was made, that is beside it."""
        path = self.path.resolve()
        beside = [folder for folder in path.parent.glob(f".{escape(path.name)}.*.tmp") if folder.is_dir()]
        unmade = [folder for folder in beside if {entry.name for entry in folder.iterdir()} <= {_RECIPE}]
        for unfinished in (*unmade, *self.path.glob(".*.tmp"), *(self.path / "checkpoints").glob(".*.tmp")):
            shutil.rmtree(unfinished) if unfinished.is_dir() else unfinished.unlink()

    def _drop_oldest(self) -> None:
        pointed = {(self.path / pointer).resolve() for pointer in ("last", "best")}
        entries = list((self.path / "checkpoints").iterdir())
        others = [entry for entry in entries if _step_of(entry) >= 0 and entry.resolve() not in pointed]
        others.sort(key=_step_of, reverse=True)
        kept = pointed | {entry.resolve() for entry in others[: self._keep - 1]}
        for entry in entries:
            if entry.resolve() not in kept:
                shutil.rmtree(entry, ignore_errors=True)


def newest_intact(run: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the folder of the newest checkpoint that is as its hashes say; None where the run has none yet.

    `warn` is told of each that is not. Raises DamagedFileError, for the newest, where none is intact.
    """
    folders = [folder for folder in (run / "checkpoints").glob("*") if _step_of(folder) >= 0]
    last = (run / "last").resolve()
    candidates = sorted(folders, key=lambda folder: (folder.resolve() == last, _step_of(folder)), reverse=True)
    failures: list[SurgeonError] = []
    for folder in candidates:
        try:
            check_checkpoint(folder)
        except SurgeonError as error:
            failures.append(error)
        else:
            for failure in failures:
                warn(f"a checkpoint is damaged, the one of step {_step_of(folder)} is taken: {failure.message}")
            return folder.resolve()
    if failures:
        raise failures[0]
    last_of(run)  # says so where there was one
    return None


def check_checkpoint(folder: Path) -> None:
    """Raise DamagedFileError unless every file of a checkpoint is as its hash says."""
    read_grafted_folder(folder)
    optimizer = read_state(folder)["hashes"].get("optimizer")
    if optimizer is not None:
        check_weights(folder / "optimizer.safetensors", optimizer, _STATE)


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


def _step_of(folder: Path) -> int:
    """Return the step of a checkpoint; -1 for what is none."""
    step = folder.name.partition("-")[0]
    return int(step) if step.isdecimal() else -1


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
