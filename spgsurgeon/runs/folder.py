"""The folder of a run: its recipe, a line of metrics an epoch, TensorBoard events, and checkpoints to resume from.

A checkpoint is a grafted folder (`best` and `last` are links to such) with the optimizer, the moving average and the
counters beside it. No file in it is a pickle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from spgsurgeon.checkpoint import (
    AVERAGE,
    OPTIMIZER,
    STATE,
    GraftManifest,
    atomic_file,
    atomic_folder,
    best_of,
    content_hash,
    own_folder,
    read_grafted_folder,
    read_manifest,
    read_safetensors,
    read_state,
    remove_ours,
    sealed,
    sweep,
    temporary_of,
    temporary_stem,
    write_grafted_folder,
    write_json,
    write_safetensors,
)
from spgsurgeon.errors import DamagedFileError
from spgsurgeon.runs.checkpoints import (
    EXTRAS,
    STEP,
    is_own,
    is_replaceable,
    last_of,
    point,
    remove_checkpoint,
    starts_of,
    step_of,
    unreadable_of,
)
from spgsurgeon.runs.episode_log import EPISODE_LENGTHS, add_lengths, write_samples
from spgsurgeon.runs.layout import (
    BEST,
    CHECKPOINTS,
    DATA_FILES,
    ENVIRONMENT,
    EPISODES,
    EVENTS,
    LAST,
    METRICS,
    RECIPE,
    UNREADABLE,
)
from spgsurgeon.runs.metrics_log import MetricsLog, keep_lines
from spgsurgeon.runs.trackers import Tracker
from spgsurgeon.runtime import FolderLock

_POINTERS = (BEST, LAST)
_NEW_POINTERS = tuple(f".{pointer}.tmp" for pointer in _POINTERS)
_LATER = (
    *(METRICS, EPISODES, ENVIRONMENT, UNREADABLE, DATA_FILES, *_POINTERS, *_NEW_POINTERS),
    *(f"{EVENTS}/events.out.tfevents.*", f"{CHECKPOINTS}/*/"),
)
"""What a run writes into its folder after that was made, as patterns; see `ownership`."""


@dataclass
class Checkpoint:
    """All that training goes on from. `state` is plain data; `ema` is the averaged base's state dict, or empty."""

    base: Mapping[str, Tensor]
    temporary: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    state: dict[str, Any]
    ema: Mapping[str, Tensor] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)
    """Why images were passed over, for people; the run folder lists them."""


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
        trackers: Sequence[Tracker] = (),
    ) -> None:
        self.path = path
        self._config = config
        self._manifest = manifest
        self._companions = companions
        self._keep = keep
        self._metrics = MetricsLog(path, trackers)

    def create(self, recipe: str, *, force: bool = False) -> FolderLock:
        """Make the folder with its resolved recipe and return the lock on it, held as long as that is kept.

        Raises UsageError if the folder exists. `force` replaces one that is all ours and that nobody writes to.
        """
        with atomic_folder(self.path, force=force, later=_LATER) as folder:
            (folder / RECIPE).write_text(recipe, encoding="utf-8")
            owned = FolderLock(folder)
        owned.moved_to(self.path)
        return owned

    def discard_unstarted(self) -> None:
        """Remove what is ours if there is no checkpoint yet: the folder would only be in the way of the next try."""
        self.close()
        if self.path.is_dir() and last_of(self.path) is None:
            remove_ours(self.path.resolve())

    def save(self, name: str, checkpoint: Checkpoint, *, best: bool) -> None:
        """Write the checkpoint as `checkpoints/NAME`, point `last` (and `best`) to it, drop the oldest."""
        name = self._unpointed(name)
        with atomic_folder(self.path / CHECKPOINTS / name, force=True) as folder:
            write_grafted_folder(
                folder,
                base=checkpoint.base,
                temporary=checkpoint.temporary,
                config=self._config,
                manifest=self._manifest,
                companions=self._companions,
            )
            hashes = {}
            for extra, name_of_extra in EXTRAS.items():
                if tensors := getattr(checkpoint, extra):
                    write_safetensors(folder / name_of_extra, tensors)
                    hashes[extra] = content_hash(tensors)
            write_json(folder / STATE, sealed({**checkpoint.state, "hashes": hashes}))
        # `best` first: killed in between, a run resumes from the older `last` and comes to the same best once more.
        for pointer in _POINTERS if best else (LAST,):
            point(self.path / pointer, Path(CHECKPOINTS) / name)
        if checkpoint.unreadable:
            self._write_unreadable(checkpoint.unreadable)
        self._drop_oldest()

    def load(self, folder: Path | None = None) -> Checkpoint | None:
        """Return the checkpoint in `folder`, else the last, verified by its hashes; None if there is none yet."""
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
            ema=read_safetensors(folder / AVERAGE)[0] if "ema" in state["hashes"] else {},
        )

    def best_content_hash(self) -> str:
        """Return the content hash of the best checkpoint's base weights: the averaged ones where there are such."""
        folder = best_of(self.path)
        averaged: str | None = read_state(folder)["hashes"].get("ema")
        return averaged or read_manifest(folder).weights_hash

    def add_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Append one epoch's line; see `MetricsLog`. Lengths of episodes, if there are, go into a file of their own."""
        line = {key: value for key, value in metrics.items() if key != EPISODE_LENGTHS}
        if EPISODE_LENGTHS in metrics:
            add_lengths(self.path, metrics, metrics[EPISODE_LENGTHS])
        self._metrics.add(line)

    def add_samples(self, names: Sequence[str], labels: Sequence[int]) -> None:
        """Say what the samples are whose episodes will be recorded."""
        write_samples(self.path, names, labels)

    def add_original(self, scores: Mapping[str, Any]) -> None:
        """Tell the trackers the scores before the first step."""
        self._metrics.add_original(scores)

    def add_losses(self, first: int, losses: Sequence[float]) -> None:
        """Tell the trackers the losses of steps, from number `first` on."""
        self._metrics.add_losses(first, losses)

    def add_start(self, environment: Mapping[str, Any]) -> None:
        """Add to `ENVIRONMENT` what a start of the run, or its resumption, stands on; drop what a kill left."""
        self._drop_unfinished()
        path = self.path / ENVIRONMENT
        starts: list[dict[str, Any]] = []
        if path.is_file():
            with suppress(DamagedFileError):  # it is for people; nothing goes by it
                starts = starts_of(path)
        with atomic_file(path, force=True) as temporary:
            write_json(temporary, {"starts": [*starts, environment]})

    def add_unreadable(self, name: str, reason: str) -> None:
        """Note what a run ended with, so that it may be repaired; see `unreadable_of`."""
        self._write_unreadable(unreadable_of(self.path) | {name: reason})

    def go_back_to(self, folder: Path) -> None:
        """Make `folder` the last checkpoint; drop those of later steps, but for the best, and what a kill left.

        A kill may also have left one too many.
        """
        point(self.path / LAST, Path(CHECKPOINTS) / folder.name)
        for entry in self._own_checkpoints():
            if step_of(entry) > step_of(folder) and entry.resolve() != (self.path / BEST).resolve():
                remove_checkpoint(entry)
        self._drop_unfinished()
        self._drop_oldest()

    def forget_metrics_after(self, done: Mapping[str, int]) -> None:
        """Keep the lines of so many epochs of each phase; see `MetricsLog`."""
        self._metrics.forget_after(done)
        keep_lines(self.path / EPISODES, {**done, "samples": 0})

    def close(self) -> None:
        """Close what is open."""
        self._metrics.close()

    def _read_optimizer(self, folder: Path, expected: str | None) -> Mapping[str, Tensor]:
        """Return the optimizer's tensors after comparing them with their hash; None is for an optimizer without."""
        path = folder / OPTIMIZER
        if expected is None:
            return {}
        if not path.is_file():
            raise DamagedFileError(f"{folder} is damaged: {path.name} is missing")
        tensors = read_safetensors(path)[0]
        if content_hash(tensors) != expected:
            raise DamagedFileError(f"{path} is damaged: its content hash is not the recorded one")
        return tensors

    def _write_unreadable(self, found: Mapping[str, str]) -> None:
        with atomic_file(self.path / UNREADABLE, force=True) as temporary:
            write_json(temporary, dict(sorted(found.items())))

    def _unpointed(self, name: str) -> str:
        """Return `name`, or one like it where a pointer leads there or somebody put something there.

        What `last` names is there at every moment.
        """
        pointed = {(self.path / pointer).resolve().name for pointer in _POINTERS}
        names = (name, f"{name}-again", f"{name}-anew")
        free = [n for n in names if n not in pointed and is_replaceable(self.path / CHECKPOINTS / n)]
        return free[0] if free else name  # which is refused, and said

    def _own_checkpoints(self) -> list[Path]:
        """Return the folders of the checkpoints that may be removed: those that the run wrote.

        None if `checkpoints` is a link: what lies elsewhere is not for a run to tidy.
        """
        folder = self.path / CHECKPOINTS
        return [] if folder.is_symlink() else [entry for entry in folder.iterdir() if is_own(entry)]

    def _drop_unfinished(self) -> None:
        """Remove what a kill left half written, beside the folder too, if it came while that was made."""
        path, files = self.path.resolve(), (ENVIRONMENT, UNREADABLE, DATA_FILES, METRICS, EPISODES)
        sweep(path.parent, temporary_stem(path.name).__eq__)
        sweep(path, files.__contains__)
        for left in path.glob(".*.tmp"):
            if left.name in _NEW_POINTERS or temporary_of(left.name) in files:  # which earlier versions left as files
                with suppress(OSError):
                    left.unlink()
        self._drop_unfinished_checkpoints()

    def _drop_unfinished_checkpoints(self) -> None:
        folder = self.path / CHECKPOINTS
        if folder.is_dir() and not folder.is_symlink():
            sweep(folder, lambda name: STEP.fullmatch(name) is not None)

    def _drop_oldest(self) -> None:
        self._drop_unfinished_checkpoints()
        pointed = {(self.path / pointer).resolve() for pointer in _POINTERS}
        others = [entry for entry in self._own_checkpoints() if entry.resolve() not in pointed]
        others.sort(key=step_of, reverse=True)
        for entry in others[self._keep - 1 :]:
            remove_checkpoint(entry)


def own_run(run: Path, warn: Callable[[str], None]) -> FolderLock:
    """Return the lock on a run's folder; see `own_folder`. `warn` is told too if nothing can be cleaned up there."""
    owned = own_folder(run, warn)
    if (run / CHECKPOINTS).is_symlink():
        warn(f"{run / CHECKPOINTS} is a link, so nothing is removed there: older checkpoints stay")
    return owned
