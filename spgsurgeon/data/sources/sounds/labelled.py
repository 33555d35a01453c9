"""Labelled sounds: files in a folder for each class, or a table of their paths."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np
from numpy.typing import NDArray

from spgsurgeon.data.sources.class_folders import find_class_folders
from spgsurgeon.data.sources.file_states import file_states
from spgsurgeon.data.sources.reading import Reading
from spgsurgeon.data.sources.records.columns import Roles, settle_columns
from spgsurgeon.data.sources.records.labels import read_labels
from spgsurgeon.data.sources.records.tables import Table, holds_table, read_table, texts_of
from spgsurgeon.data.sources.sounds.recording import ENDINGS, Recording, need_packages
from spgsurgeon.data.sources.source import existing_folder, printable, short_hash
from spgsurgeon.errors import DataError, UsageError

ROLES = Roles(
    inputs=({"file": "file"}, {"file": "path"}, {"file": "audio"}, {"file": "file_name"}),
    needed=("file",),
    others={"label": ("label", "labels")},
)
"""The roles of columns, with the names that data sets have for them."""


@dataclass(frozen=True, eq=False)
class LabelledSounds:
    """See `ImageSource`; what is read is a `Recording`. `counted` says that the classes were counted off the labels."""

    name: str
    paths: Sequence[str]
    numbers: NDArray[np.int64]
    classes: tuple[str, ...]
    counted: bool = False
    table: Path | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, index: int) -> tuple[Recording, int]:
        """See `Source`."""
        return Recording(Path(self.paths[index])), int(self.numbers[index])

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.numbers

    def describe(self, index: int) -> str:
        """See `Source`."""
        return printable(self.paths[index])

    def file_paths(self) -> Iterable[str | Path]:
        """See `Source`."""
        return [*([self.table] if self.table else []), *self.paths]

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [short_hash(self.numbers.tobytes())]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return [self.name, *self.marks(), *file_states(self.file_paths())]


def open_sounds(source: str, path: str | Path | None, split: str, reading: Reading) -> LabelledSounds:
    """Open a split of labelled sounds. Raises UsageError if both a folder and a table could be meant."""
    need_packages(f"data.source {source}")
    root = existing_folder(path, source)
    has_table, has_folder = holds_table(root, split), (root / split).is_dir()
    if has_table and has_folder and PurePath(split).suffix == "":
        raise UsageError(
            f"{root} has a folder {split} and a table of that name: which of them is the split?",
            hint="the table's name with its ending (data.train, data.eval; eval: --split) means the table",
        )
    return _of_table(source, root, split, reading) if has_table else _of_folders(source, root, split, reading)


def _of_folders(source: str, root: Path, split: str, reading: Reading) -> LabelledSounds:
    for key, said in (("classes", reading.classes), ("columns", reading.columns)):
        if said:
            raise UsageError(f"data.{key} is for tables, and {root / split} has class folders", hint="leave it out")
    found = find_class_folders(source, root, split, "sound", ENDINGS, str)
    numbers = np.array([label for _, label in found.dataset.samples], dtype=np.int64)
    paths = [file for file, _ in found.dataset.samples]
    return LabelledSounds(found.name, paths, numbers, found.classes, notes=found.notes)


def _of_table(source: str, root: Path, split: str, reading: Reading) -> LabelledSounds:
    table = read_table(source, root, split)
    columns, notes = settle_columns(table, reading.columns, ROLES)
    numbers, classes, counted = read_labels(table, columns["label"], reading.classes)
    paths = _paths(table, columns["file"], root)
    return LabelledSounds(f"{root} ({split})", paths, numbers, classes, counted, table.path, tuple(notes))


def _paths(table: Table, column: str, root: Path) -> list[str]:
    """Return the files of a table's rows. Raises DataError for one that does not lie within the data's folder."""
    found = []
    for row, name in enumerate(texts_of(table, column, "file")):
        inside = os.path.normpath(name)
        if not name or os.path.isabs(name) or inside.split(os.sep)[0] == os.pardir or "\0" in name:
            raise DataError(
                f"{table.describe(row)}: {name!a:.80} is not the path of a file within {printable(str(root))}",
                hint=f"paths in {column!r} start at the data's folder, as in recordings/one.wav",
                code="path-outside",
            )
        found.append(os.path.join(root, inside))
    return found
