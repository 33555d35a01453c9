"""Tables: one file a split, `train.tsv`, `.csv`, `.jsonl` or `.txt`, or a folder that datasets' `save_to_disk` wrote.

Tab-separated files have no quoting (as GLUE's), comma-separated ones have double quotes, and both have a header. Every
line of a .jsonl is an object, and every line of a .txt is a text, the column `text`. All of them are UTF-8. Rows are
held in memory as they are.
"""

from __future__ import annotations

import csv
import importlib.util
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from spgsurgeon.data.sources.source import existing_folder, listing, nearby_folders, printable
from spgsurgeon.errors import DataError, UsageError, did_you_mean, first_line

PLAIN, TEXT = ".txt", "text"
"""The ending of files that are no more than lines of text, and the column that these are."""


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one split. Every column has an entry a row; `lines` has the line that a row begins at, from 1.

    `class_names` has the names that a column's numbers stand for, of columns for which the data says them.
    """

    path: Path
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int] = ()
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def describe(self, row: int) -> str:
        """Return where a row is, for messages."""
        place = f"line {self.lines[row]}" if self.lines else f"row {row}"
        return f"{printable(str(self.path))}, {place}"

    def column(self, name: str, role: str) -> Sequence[Any]:
        """Return a column. Raises UsageError, naming those that there are, for one that is not there."""
        if name in self.columns:
            return self.columns[name]
        raise UsageError(
            f"{printable(str(self.path))} has no column {name!r} for {role}; there are "
            f"{listing(list(self.columns), 12)}",
            hint=did_you_mean(name, self.columns) or f"data.columns={{{role}: NAME}} names it",
            code="unknown-column",
        )


def read_table(source: str, path: str | Path | None, split: str) -> Table:
    """Return the rows of a split of the data in the folder `path`.

    Raises UsageError if there is none, or more than one, and DataError naming the line for what can't be read.
    """
    found = _find(existing_folder(path, source), split)
    table = _read_saved(found) if found.is_dir() else _READERS[found.suffix](found)
    if not len(table):
        raise UsageError(f"{printable(str(found))} has no row", code="no-rows")
    return table


def holds_table(root: Path, split: str) -> bool:
    """Return whether a folder has a table for a split, by whatever ending."""
    named = root / split
    files = [root / f"{split}{ending}" for ending in _READERS] + ([named] if named.suffix in _READERS else [])
    return (named / _STATE).is_file() or any(path.is_file() for path in files)


def _find(root: Path, split: str) -> Path:
    """Return the file, or the folder of a saved data set, that holds a split."""
    named = root / split
    if named.suffix in _READERS and named.is_file():
        return named
    if (named / _STATE).is_file():
        return named
    found = [path for ending in _READERS if (path := root / f"{split}{ending}").is_file()]
    if len(found) == 1:
        return found[0]
    wanted = f"{split}{{{','.join(_READERS)}}}"
    if found:
        raise UsageError(
            f"{root} has {listing([path.name for path in found])}: which of them is the split?",
            hint=f"data.train or data.eval with its ending, as {found[0].name}",
        )
    there = sorted(path.name for path in root.iterdir() if path.suffix in _READERS)
    hint = did_you_mean(split, [Path(name).stem for name in there]) or (
        f"tables there: {listing(there)}" if there else nearby_folders(root, split)
    )
    raise UsageError(f"there is no {wanted} in {root}, and no folder {split} that save_to_disk wrote", hint=hint)


def _read_separated(path: Path, **form: Any) -> Table:
    with open(path, "rb") as file:
        reader = csv.reader(_decoded(file, path), strict=True, **form)
        try:
            header = next(reader, [])
            if len(set(header)) < len(header) or not all(header):
                raise DataError(f"{path}: the first line must name each column once (got {listing(header, 12)})")
            rows, lines, line = [], [], reader.line_num + 1
            for row in reader:
                if len(row) != len(header):
                    raise DataError(
                        f"{path}, line {line}: {len(row)} values for {len(header)} columns",
                        hint=".tsv files have no quoting; .csv files have double quotes" if len(row) else None,
                    )
                rows.append(row)
                lines.append(line)
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    return Table(path, {name: [row[place] for row in rows] for place, name in enumerate(header)}, lines)


def _read_tabs(path: Path) -> Table:
    return _read_separated(path, delimiter="\t", quoting=csv.QUOTE_NONE)


def _read_json_lines(path: Path) -> Table:
    rows, lines = [], []
    with open(path, "rb") as file:
        for number, line in enumerate(_decoded(file, path), start=1):
            if line.strip():
                rows.append(_object(line, path, number))
                lines.append(number)
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(path, {name: [row.get(name) for row in rows] for name in names}, lines)


def _read_lines(path: Path) -> Table:
    with open(path, "rb") as file:
        lines = [line.rstrip("\r\n") for line in _decoded(file, path)]
    return Table(path, {TEXT: lines}, range(1, len(lines) + 1))


def _object(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}, line {number}: not JSON: {first_line(error)}") from error
    if isinstance(value, dict):
        return value
    raise DataError(f"{path}, line {number}: not an object", hint='a .jsonl has an object a line: {"text": ...}')


def _decoded(file: BinaryIO, path: Path) -> Iterator[str]:
    """Give the lines of a text; a file that decodes itself does so in blocks, and can't say which line is at fault."""
    for number, line in enumerate(file, start=1):
        try:
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{path}, line {number}: not UTF-8: {error.reason}", hint="save it as UTF-8") from error


_READERS: dict[str, Callable[[Path], Table]] = {
    ".tsv": _read_tabs,
    ".csv": _read_separated,
    ".jsonl": _read_json_lines,
    PLAIN: _read_lines,
}
"""What reads a file of an ending."""
_STATE = "state.json"  # in a folder that save_to_disk wrote


def _read_saved(path: Path) -> Table:
    if importlib.util.find_spec("datasets") is None:
        raise UsageError(
            f"{path} was written by Hugging Face's datasets, which is not installed",
            hint="pip install datasets",
            code="missing-package",
        )
    import datasets

    try:
        saved = datasets.load_from_disk(str(path)).with_format(None)
        columns = {name: list(saved[name]) for name in saved.column_names}
        kinds = {name: getattr(feature, "feature", feature) for name, feature in saved.features.items()}  # of a list
        named = {name: kind.names for name, kind in kinds.items() if hasattr(kind, "names")}
    except Exception as error:  # whatever a damaged file trips
        raise DataError(f"can't read the data set in {path}: {first_line(error) or type(error).__name__}") from error
    return Table(path, columns, class_names={name: tuple(map(str, names)) for name, names in named.items()})


def texts_of(table: Table, column: str, role: str) -> list[str]:
    """Return a column of texts. Raises DataError, naming the row, for a value that is none."""
    found = list(table.column(column, role))
    for row, value in enumerate(found):
        if not isinstance(value, str):
            raise DataError(f"{table.describe(row)}: {column} is {type(value).__name__}, not a text")
    return found
