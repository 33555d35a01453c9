"""What in a folder is ours: what the record says that lies in every folder that this package writes.

Only that is ever removed or replaced. A record lists names as patterns, a part for each folder on the way: "*" stands
for any name, "figures/*.png" for images in `figures`, and "base/" for a folder `base` with a record of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fnmatch import fnmatchcase
from glob import escape
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint.layout import CONFIG, MANIFEST, TEMPORARY, WEIGHTS
from spgsurgeon.checkpoint.refusals import MalformedError
from spgsurgeon.checkpoint.sealing import check_seal
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import LOCK, as_json

RECORD = ".spgsurgeon.json"
_LONGEST = 10 * 2**20  # bytes of a record
_NAMED = 5
_BEFORE_RECORDS = (WEIGHTS, TEMPORARY, CONFIG, MANIFEST)
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.tmp", re.DOTALL)
_LONGEST_STEM, _KEPT = 240, 200  # bytes: file systems take names of 255


def record(folder: Path, name: str, later: Iterable[str] = ()) -> None:
    """Write down that everything in a folder is ours and, as patterns, what comes `later`.

    `name` is what the folder is called in the end: in a run, a copy under another name is not ours.
    """
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if not _is_folder(path))
    names = [escape(file.as_posix()) for file in files if file.name not in (RECORD, LOCK)]
    document = {"written_by": "spgsurgeon", "name": name, "holds": names, "later": list(later)}
    (folder / RECORD).write_text(as_json(document, indent=2) + "\n", encoding="utf-8")


def has_own_record(folder: Path) -> bool:
    """Whether a folder (not a link to one) has a record and the name that it had when that was written."""
    return _is_folder(folder) and _read(folder).get("name") == folder.name


def grows(folder: Path) -> bool:
    """Whether more comes into a folder after it was made, as into that of a run: then it has an owner meanwhile."""
    return bool(_names(folder, "later"))


def strangers(folder: Path) -> list[str]:
    """Return what lies in a folder and below it and is not ours; folders have a slash at the end."""
    return [name for name, ours in _entries(folder, _recorded(folder)) if not ours]


def check_ours(folder: Path) -> None:
    """Raise UsageError naming what in a folder is not ours, if anything is: then nothing may replace it."""
    if found := strangers(folder):
        more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise UsageError(
            f"{folder} is not replaced, even with --force: spgsurgeon did not write {', '.join(found[:_NAMED])}{more}",
            hint="give another output, or remove that folder yourself",
        )


def remove_ours(folder: Path, patterns: Iterable[str] | None = None) -> None:
    """Remove what is ours in a folder, by its record or else by these patterns, and then the folder if it is empty.

    What can't be removed stays, without a word. The record goes last: a folder that a kill leaves half removed is still
    known as ours.
    """
    if not _is_folder(folder):
        return
    found = _entries(folder, _recorded(folder) if patterns is None else _split(patterns))
    for name in sorted((name for name, ours in found if ours), key=RECORD.__eq__):
        _remove(folder / name, folder=name.endswith("/"))
    with suppress(OSError):
        folder.rmdir()


def temporary_stem(name: str) -> str:
    """Return what the temporary name of an output has for its name: that or, of a long one, its start and a hash."""
    whole = os.fsencode(name)
    if len(whole) <= _LONGEST_STEM:
        return name
    start = name[:_KEPT]
    while len(os.fsencode(start)) > _KEPT:
        start = start[:-1]
    return f"{start}-{hashlib.sha256(whole).hexdigest()[:16]}"


def temporary_of(name: str) -> str | None:
    """Return the `temporary_stem` of the output that is written under this temporary name; None for any other name."""
    found = _TEMPORARY.fullmatch(name)
    return found["name"] if found else None


def _remove(path: Path, *, folder: bool) -> None:
    with suppress(OSError):
        if not folder:
            path.unlink()
        elif temporary_of(path.name):
            shutil.rmtree(path)
        else:
            path.rmdir()  # empty, unless somebody else put something there


def _entries(folder: Path, patterns: list[list[str]], above: str = "") -> Iterator[tuple[str, bool]]:
    """Yield each entry's name, a folder's after what is in it, and whether it is ours."""
    for entry in sorted(folder.iterdir()):
        name, temporary = above + entry.name, temporary_of(entry.name) is not None
        rests = [pattern[1:] for pattern in patterns if fnmatchcase(entry.name, pattern[0])]
        below = [rest for rest in rests if any(rest)]
        if not _is_folder(entry):
            yield name, [] in rests or temporary or entry.name in (RECORD, LOCK)
        elif [""] in rests and has_own_record(entry):
            yield from _entries(entry, _recorded(entry), f"{name}/")
            yield f"{name}/", True
        elif below:
            yield from _entries(entry, below, f"{name}/")
            yield f"{name}/", True
        else:
            yield f"{name}/", temporary


def _recorded(folder: Path) -> list[list[str]]:
    if not (folder / RECORD).exists() and _is_earlier_graft(folder):
        return _split(_BEFORE_RECORDS)
    return _split(_names(folder, "holds") + _names(folder, "later"))


def _is_earlier_graft(folder: Path) -> bool:
    """Whether an earlier version, which left no record, grafted this folder: its manifest is as that sealed it."""
    try:
        with (folder / MANIFEST).open("rb") as file:
            document = json.loads(file.read(_LONGEST))
        check_seal(document)
    except (OSError, ValueError, RecursionError, AttributeError, MalformedError):
        return False
    return True


def _names(folder: Path, key: str) -> list[str]:
    found = _read(folder).get(key)
    return [name for name in found if isinstance(name, str)] if isinstance(found, list) else []


def _split(patterns: Iterable[str]) -> list[list[str]]:
    return [pattern.split("/") for pattern in patterns]


def _read(folder: Path) -> dict[str, Any]:
    """Return a folder's record, empty if there is none, or something else of its name."""
    try:
        with (folder / RECORD).open("rb") as file:
            document = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
