"""What a run was started on, so that one that resumes notices what has changed: classes, samples and files.

Of files only the size and the time of change are looked at: N files cost a scan of their folders, and no reading.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from spgsurgeon.checkpoint import atomic_file
from spgsurgeon.data import Source, listing
from spgsurgeon.runs.layout import DATA_FILES
from spgsurgeon.runtime import as_json

State = tuple[int, int]
"""Of a file: its size in bytes and its time of change in nanoseconds, both -1 where there is no such file."""
Files = Mapping[str, State]
_NAMED = 3


@dataclass(frozen=True)
class DataRecord:
    """One split as a run sees it. `marks` is a hash of what its samples go by besides files; files go by their name."""

    classes: tuple[str, ...]
    samples: int
    marks: str
    files: Files = field(repr=False)

    @cached_property
    def summary(self) -> dict[str, Any]:
        """It as plain data, the files as two hashes: of names and sizes, and of times."""
        names = sorted(self.files)
        return {
            "classes": list(self.classes),
            "samples": self.samples,
            "marks": self.marks,
            "files": len(names),
            "names_and_sizes": _hash(f"{name}\0{self.files[name][0]}" for name in names),
            "times": _hash(f"{name}\0{self.files[name][1]}" for name in names),
        }


def record_of(source: Source[Any], root: str | Path | None, like: DataRecord | None = None) -> DataRecord:
    """Return the record of a source; files below the data's folder `root` go by their path within it.

    `like` is one whose files it shares if they are the same, as those of what is held out.
    """
    files: Files = _states(source.file_paths(), root)
    shared = like.files if like is not None and like.files == files else files
    return DataRecord(source.classes, len(source), _hash(source.marks()), shared)


@dataclass(frozen=True)
class Comparison:
    """How data differs from what was recorded, in words, and what should be said although nothing differs."""

    differences: list[str]
    remarks: list[str] = field(default_factory=list)


def compare(
    before: Mapping[str, Any], files: Files | None, now: DataRecord, repaired: Iterable[str] = ()
) -> Comparison:
    """Compare a summary of earlier, and the files then (None: not known any more), with what there is now.

    `repaired` are files that could not be read before, so that they may have changed. Where every file has another time
    of change, and the names and sizes of before, the data was copied: that is a remark.
    """
    current = now.summary
    found = _of_classes(before.get("classes", []), now.classes)
    copied = files is not None and _is_copy(files, now.files)
    if files is None and any(before.get(key) != current[key] for key in ("names_and_sizes", "times")):
        found.append("its files have changed")
    elif files is not None and not copied:
        found += _of_files(files, now.files, set(repaired))
    if not found and any(before.get(key) != current[key] for key in ("samples", "marks")):
        found.append(f"it has other samples or labels ({before.get('samples')} samples before, {now.samples} now)")
    remark = "every file has another time of change, as in a copy; names and sizes are the same, contents not compared"
    return Comparison(found, [remark] if copied and not found and files != now.files else [])


def write_files(folder: Path, records: Mapping[str, DataRecord]) -> None:
    """Write the files of the records, by split, into a folder."""
    document = {split: record.files for split, record in records.items()}
    with atomic_file(folder / DATA_FILES, force=True) as temporary:
        temporary.write_bytes(gzip.compress(as_json(document).encode(), compresslevel=1, mtime=0))


def read_files(folder: Path, split: str) -> Files | None:
    """Return the files of a split as they were written; None if they can't be read."""
    try:
        with gzip.open(folder / DATA_FILES) as file:
            found = json.load(file)[split]
        return {str(name): (int(size), int(time)) for name, (size, time) in found.items()}
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def _is_copy(before: Files, now: Files) -> bool:
    """Whether these are the same names and sizes, and no time of change that is now was before; or all is the same."""
    if before.keys() != now.keys() or any(before[name][0] != now[name][0] for name in before):
        return False
    return before == now or not {time for _, time in before.values()} & {time for _, time in now.values()}


def _of_classes(before: Sequence[str], now: Sequence[str]) -> list[str]:
    if list(before) == list(now):
        return []
    gone, new = [name for name in before if name not in now], [name for name in now if name not in before]
    if not gone and not new:
        return ["its classes are in another order"]
    return [f"{what} {listing(names)}" for what, names in (("lost the classes", gone), ("new classes", new)) if names]


def _of_files(before: Files, now: Files, repaired: set[str]) -> list[str]:
    """Return what happened to files, each kind in words."""
    gone, new = [n for n in before if n not in now], [n for n in now if n not in before]
    changed = [name for name in before if name in now and before[name] != now[name] and name not in repaired]
    renamed = _pairs(gone, before, new, now)
    exchanged = [pair for pair in _pairs(changed, before, changed, now) if pair[0] != pair[1]]
    old_names, new_names = ({pair[side] for pair in renamed} for side in (0, 1))
    moved = {name for pair in exchanged for name in pair}
    kinds = {
        "removed": [name for name in gone if name not in old_names],
        "added": [name for name in new if name not in new_names],
        "renamed": [f"{one} to {other}" for one, other in renamed],
        "exchanged": [f"{one} is now {other}" for one, other in exchanged],
        "replaced": [name for name in changed if name not in moved],
    }
    return [f"{kind}: {_listing(names)}" for kind, names in kinds.items() if names]


def _pairs(old: Iterable[str], before: Files, new: Iterable[str], now: Files) -> list[tuple[str, str]]:
    """Return pairs of names of which the second has now the size and the time that the first one had before."""
    names: dict[State, list[str]] = {}
    for name in new:
        names.setdefault(now[name], []).append(name)
    found = ((name, names.get(before[name], [])) for name in old)
    return [(name, others[0]) for name, others in found if len(others) == 1]


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(name if name.isprintable() else ascii(name) for name in names[:_NAMED])
    return shown if len(names) <= _NAMED else f"{shown} and {len(names) - _NAMED:,} more"


def _states(paths: Iterable[str | Path], root: str | Path | None) -> dict[str, State]:
    """Return the state of each file, by a scan of the folders that they lie in."""
    folders: dict[str, set[str]] = {}
    for path in paths:
        folder, name = os.path.split(os.path.abspath(path))
        folders.setdefault(folder, set()).add(name)
    found: dict[str, State] = {}
    for folder, names in sorted(folders.items()):
        within = name_within(folder, root)
        within = os.path.join(within, "") if within != os.curdir else ""
        found |= {within + name: (-1, -1) for name in sorted(names)}
        found |= {within + name: state for name, state in _scan(folder) if name in names}
    return found


def name_within(path: str, root: str | Path | None) -> str:
    """Return a path as records have it: within the root, or as it is where it lies elsewhere."""
    absolute = os.path.abspath(path)
    within = absolute if root is None else os.path.relpath(absolute, Path(root).expanduser())
    return absolute if within.split(os.sep)[0] == os.pardir else within


def _scan(folder: str) -> Iterator[tuple[str, State]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                with suppress(OSError):  # a link that leads nowhere
                    state = entry.stat()
                    yield entry.name, (state.st_size, state.st_mtime_ns)
    except OSError:
        return


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()
