"""What is shown, in words and tables: numbers, proofs, scores, rows."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def pairs(rows: Iterable[tuple[str, object]]) -> Table:
    """Return a table of names and values without lines, for one thing's properties."""
    from rich.table import Table

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _cell(value))
    return table


def columns(head: Iterable[str], rows: Iterable[Iterable[object]], whole: Collection[str] = ()) -> Table:
    """Return a table with a head, for several things of a kind; the columns `whole` are the last to be folded."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold", no_wrap=name in whole)
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: object) -> Text | str:
    """Return a value as it is shown in a table: what is coloured on purpose, or plain text without any markup."""
    from rich.markup import escape
    from rich.text import Text

    return value if isinstance(value, Text) else escape(in_one_line(str(value)))


GOOD, BAD, OPEN = "green", "bold red", "yellow"


def coloured(text: str, style: str) -> Text:
    """Return a verdict in its colour, which a pipe or a file does not get."""
    from rich.text import Text

    return Text(in_one_line(text), style)


def printable(text: str) -> str:
    """Return the text with what could steer a terminal spelt out: names in a stranger's file may hold anything."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


def in_one_line(text: str) -> str:
    """Return the text as `printable` does, line breaks too: a key of a file can't pretend to be a row, or a note."""
    return printable(text).replace("\n", "\\n")


def millions(count: int) -> str:
    """Return a number of parameters as people write it."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else f"{count:,}"


def several(value: Any) -> str:
    """Return one value, or the values of several heads."""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def proof_lines(proof: Mapping[str, bool]) -> str:
    """Return the laws that hold, as words."""
    return ", ".join(law.replace("_", " ") for law, holds in proof.items() if holds)


def score_line(scores: Mapping[str, Any]) -> str:
    """Return the score that counts, with its name."""
    from spgsurgeon.tasks import task_of

    task = task_of(scores)
    assert task is not None, "scores have that of their task"
    return f"{task.primary.label} {task.primary.written(scores[task.primary.name], 2)}"


def image_size(document: Mapping[str, Any]) -> str:
    """Return the size of images, as they were trained on or scored, after a comma; nothing for other samples."""
    if "shorter_edge" in document:
        return f", shorter edge {document['shorter_edge']} pixels"
    if "image_size" not in document:
        return ""
    height, width = document["image_size"]
    before = document.get("resized_to", document["image_size"])
    cut = f" from the middle of {before[0]} x {before[1]}" if before != document["image_size"] else ""
    return f", {height} x {width} pixels{cut}"


def gigabytes(size: int) -> str:
    """Return a number of bytes as people write it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def facts(found: Mapping[str, Any]) -> Iterator[str]:
    """Return of what kinds samples are, and how large, in words."""
    for kind, counts in found["kinds"].items():
        yield f"{kind} " + ", ".join(f"{name} ({count:,})" for name, count in counts.items())
    for size, (least, middle, most) in found["sizes"].items():
        yield f"{size} {least:g}" if least == most else f"{size} {least:,.4g} to {most:,.4g} (median {middle:,.4g})"


def duration(seconds: float) -> str:
    """Return a time as people say it."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
