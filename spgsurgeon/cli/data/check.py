"""`spgsurgeon check`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import typer

from spgsurgeon.cli.evaluate import (
    Column,
    DataPath,
    Ignore,
    MaskValue,
    MaxPixels,
    ValueRange,
    mask_values_of,
    pairs_of_columns,
)
from spgsurgeon.cli.terminal.completion import data_sources
from spgsurgeon.cli.terminal.console import emit, leave_with_error
from spgsurgeon.cli.terminal.text import columns, facts, pairs
from spgsurgeon.data import SOURCES, described

_CLASSES, _NAMED = 20, 10  # that are shown

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help=f"A folder, or the form of the data by name: {described(SOURCES.values())}.",
        show_default=False,
        autocompletion=data_sources,
    ),
]
Source = Annotated[
    str | None,
    typer.Option("--source", help="The form of a folder, as data.source.", show_default="found out"),
]
Splits = Annotated[
    list[str] | None,
    typer.Option("--split", help="A split or sub-folder; may be given again.", show_default="those that there are"),
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="N|NAME,NAME", help="The classes, as data.classes.", show_default="by the data"),
]
Sample = Annotated[int | None, typer.Option("--sample", min=1, help="Read only so many samples of each split.")]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Threads that read; by the machine.")]


def command(
    data: Data,
    data_path: DataPath = None,
    source: Source = None,
    split: Splits = None,
    classes: Classes = None,
    column: Column = None,
    ignore: Ignore = None,
    mask_value: MaskValue = None,
    value_range: ValueRange = None,
    max_pixels: MaxPixels = None,
    sample: Sample = None,
    workers: Workers = None,
) -> None:
    """Say what a data set holds, and what would go wrong with it.

    Reads every sample once: classes by split, sizes and kinds, files that can't be read, samples that are in two splits
    or under two classes. The exit code is 1 if training would stop at something.

    Example: `spgsurgeon check photos/`
    """
    from spgsurgeon.cli.terminal.progress import Bar
    from spgsurgeon.commands.data.check import check

    with Bar("opening the data", "samples") as bar:
        document = check(
            data,
            path=data_path,
            source=source,
            splits=split or (),
            classes=_classes(classes),
            columns=pairs_of_columns(column),
            ignore=ignore or (),
            mask_values=mask_values_of(mask_value),
            value_range=value_range,
            max_pixels=max_pixels,
            sample=sample,
            workers=workers,
            told=lambda done, total: bar.told(done, total, "reading"),
        )
    emit(document, _render)
    if "error" in document:
        leave_with_error(document)


def _classes(text: str | None) -> Sequence[str] | int | None:
    if text is None or text.isdecimal():
        return None if text is None else int(text)
    return [name.strip() for name in text.split(",")]


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    splits = document["splits"]
    rows = [("data", f"{document['samples']} ({document['source']}) in {document['data']}")]
    rows += [row for name, split in splits.items() for row in _about(name, split)]
    parts: list[Any] = [pairs(rows)]
    for table in (_class_table(splits), _unreadable_table(splits), *_duplicate_tables(document["duplicates"])):
        parts += ["", table] if table is not None else []
    return Group(*parts)


def _about(name: str, split: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    looked = "" if split["looked_at"] == split["samples"] else f", of which {split['looked_at']:,} were looked at"
    yield name, f"{split['samples']:,} samples{looked}"
    yield from (("", fact) for fact in facts(split))


def _class_table(splits: Mapping[str, Any]) -> Any:
    """Return how many samples each class has by split, or units of them; of many the rarest and the most frequent."""
    names = list(dict.fromkeys(name for split in splits.values() for name, _ in split["classes"]))
    counts = {name: [dict(split["classes"]).get(name, 0) for split in splits.values()] for name in names}
    if len(names) < 2 or not any(map(sum, counts.values())):
        return None
    rows = [(name, *(f"{count:,}" for count in counts[name])) for name in names]
    if len(names) > _CLASSES:
        ranked = sorted(rows, key=lambda row: sum(counts[row[0]]))
        half = _CLASSES // 2
        rows = [*ranked[:half], (f"... {len(names) - _CLASSES} between ...",), *ranked[-half:]]
    return columns(("class", *splits), rows)


def _unreadable_table(splits: Mapping[str, Any]) -> Any:
    rows = [row for split in splits.values() for row in split["unreadable"].items()]
    return columns(("can't be read", "why"), rows) if rows else None


def _duplicate_tables(found: Mapping[str, Any]) -> Iterator[Any]:
    for title, groups in (("in two splits", found["across_splits"]), ("in two classes", found["other_classes"])):
        if groups:
            shown = [(" = ".join(group[:3]),) for group in groups[:_NAMED]]
            more = [(f"... and {len(groups) - _NAMED:,} more (--json has all)",)] if len(groups) > _NAMED else []
            yield columns((title,), [*shown, *more])
