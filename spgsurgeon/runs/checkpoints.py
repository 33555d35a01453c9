"""The checkpoints of a run on disk: which is the last, which are intact, which are the run's own."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import (
    AVERAGE,
    CONFIG,
    MANIFEST,
    OPTIMIZER,
    RECORD,
    STATE,
    TEMPORARY,
    WEIGHTS,
    check_schema,
    check_weights,
    checkpoint_at,
    has_own_record,
    naming,
    read_grafted_folder,
    read_json_object,
    read_state,
    remove_ours,
    strangers,
    write_failures,
)
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.runs.layout import CHECKPOINTS, LAST, RECIPE, UNREADABLE

EXTRAS = {"optimizer": OPTIMIZER, "ema": AVERAGE}
_BEFORE_RECORDS = (WEIGHTS, TEMPORARY, CONFIG, MANIFEST, STATE, *EXTRAS.values())
"""All that lies in a checkpoint, for those of earlier versions, which left no record of it."""
STEP = re.compile(r"(\d+)(-again|-anew)?")


def starts_of(path: Path) -> list[dict[str, Any]]:
    """Return what an `ENVIRONMENT` file says of each start of a run. Raises DamagedFileError for no such list."""
    document = read_json_object(path)
    starts = document.get("starts")
    with naming(path):
        check_schema(dict[str, list[dict[str, Any]]], {"starts": starts})
    return list(starts or [])


def unreadable_of(run: Path) -> dict[str, str]:
    """Return why images could not be read, by their path, as far as a run notes it."""
    try:
        return {path: reason for path, reason in read_json_object(run / UNREADABLE).items() if isinstance(reason, str)}
    except SurgeonError:  # nothing was noted
        return {}


def newest_intact(run: Path, warn: Callable[[str], None]) -> Path | None:
    """Return the folder of the newest checkpoint that is as its hashes say; None if the run has none yet.

    `warn` is told of each that is not. Raises DamagedFileError, for the newest, where none is intact.
    """
    last = (run / LAST).resolve()
    folders = [folder for folder in (run / CHECKPOINTS).glob("*") if folder.resolve() == last or is_own(folder)]
    candidates = sorted(folders, key=lambda folder: (folder.resolve() == last, step_of(folder)), reverse=True)
    failures: list[SurgeonError] = []
    for folder in candidates:
        try:
            check_checkpoint(folder)
        except SurgeonError as error:
            failures.append(error)
        else:
            for failure in failures:
                warn(f"a checkpoint is damaged, the one of step {step_of(folder)} is taken: {failure.message}")
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
        check_weights(folder / OPTIMIZER, optimizer, STATE)
    elif (folder / OPTIMIZER).exists():
        raise DamagedFileError(f"{folder / STATE} is damaged: hashes.optimizer is missing")


def last_of(run: Path) -> Path | None:
    """Return the folder of a run's last checkpoint, None if there is none yet.

    Raises DamagedFileError if there was one.
    """
    return checkpoint_at(run / LAST)


def run_of(checkpoint: Path) -> Path | None:
    """Return the run whose checkpoint a folder, or a link to one, is; None for a folder of another kind."""
    folder = checkpoint.resolve()
    run = folder.parent.parent
    return run if folder.parent.name == CHECKPOINTS and (run / RECIPE).is_file() else None


def recipe_of(run: Path) -> str:
    """Return the resolved recipe of a run. Raises UsageError if there is none, DamagedFileError if it is not text."""
    path = run / RECIPE
    if not path.is_file():
        raise UsageError(f"{run} is not a run folder: it has no {RECIPE}", hint="start one without --resume")
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise DamagedFileError(f"{path} is damaged: it is not text ({error!s:.120})") from error


def step_of(folder: Path) -> int:
    """Return the step of a checkpoint; -1 for what is none."""
    found = STEP.fullmatch(folder.name)
    return int(found[1]) if found else -1


def is_own(folder: Path) -> bool:
    """Whether a folder is a checkpoint that a run wrote, under this name.

    An earlier version left no record: there it goes by its manifest, and by holding nothing else. An empty folder is
    what a kill left of one that was being removed.
    """
    if step_of(folder) < 0 or not folder.is_dir() or folder.is_symlink():
        return False
    if (folder / RECORD).exists():
        return has_own_record(folder)
    names = {entry.name for entry in folder.iterdir()}
    return not names or (STATE in names and names <= {*_BEFORE_RECORDS})


def is_replaceable(folder: Path) -> bool:
    """Whether a checkpoint may be written there: nothing is, or nothing but what a run wrote."""
    return not os.path.lexists(folder) or (has_own_record(folder) and not strangers(folder))


def remove_checkpoint(folder: Path) -> None:
    """Remove what the run wrote into a checkpoint's folder, and the folder if nothing else is left."""
    remove_ours(folder, None if (folder / RECORD).exists() else _BEFORE_RECORDS)


def point(link: Path, target: Path) -> None:
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
