"""What people and scripts see: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any, TextIO

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from spgsurgeon.errors import SurgeonError


@dataclass
class Verbosity:
    """The options that every command has; set while the command line is parsed."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    stdout: TextIO | None = None
    """Where data goes while a command keeps everybody else off stdout."""


verbosity = Verbosity()

_UNLIMITED = 100_000  # characters

_out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


@contextmanager
def stdout_for_data_only() -> Iterator[None]:
    """Send what libraries print to stderr, as torch.hub does to announce a download; `emit` still reaches stdout."""
    verbosity.stdout = sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        verbosity.stdout = None


def speaks() -> bool:
    """Whether this process prints: under torchrun only the first one does."""
    return os.environ.get("RANK", "0") == "0"


def emit(document: Mapping[str, Any], render: Callable[[Any], object]) -> None:
    """Print a command's result: the document with --json, else what `render` makes of it; then its notes."""
    if not speaks():
        return
    for text in document.get("notes", []):
        note(text)
    with redirect_stdout(verbosity.stdout or sys.stdout):
        if verbosity.json:
            print(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            _show(render(document))


def _show(rendered: Any) -> None:
    """Print to stdout: wrapped to a terminal's width; into a pipe or a file a row a line, however long it is."""
    if _out.is_terminal:
        _out.print(rendered)
        return
    _out.width = _UNLIMITED
    with _out.capture() as captured:
        _out.print(rendered)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def note(text: str) -> None:
    """Say something that is not data, unless --quiet."""
    if speaks() and not verbosity.quiet and not verbosity.json:
        err.print(f"[dim]note:[/dim] {escape(text)}")


def fail(error: SurgeonError) -> None:
    """Print what went wrong: one line, and what to do next; with --json the error document on stdout."""
    if not speaks():
        return
    if verbosity.json:
        details = {"kind": error.kind, "message": error.message, "hint": error.hint, **error.details}
        print(json.dumps({"error": details, "exit_code": error.exit_code}, indent=2, ensure_ascii=False))
        return
    message = error.message.replace("\n", "\n       ")  # several faults stand below each other
    err.print(f"[bold red]error:[/bold red] {escape(message)}")
    if error.hint:
        err.print(f"[dim]hint:[/dim] {escape(error.hint)}")


def pairs(rows: Iterable[tuple[str, object]]) -> Table:
    """Return a table of names and values without lines, for one thing's properties."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(str(value)))
    return table


def columns(head: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Return a table with a head, for several things of a kind."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row))
    return table


def millions(count: int) -> str:
    """Return a number of parameters as people write it."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else f"{count:,}"


def proof_lines(proof: Mapping[str, bool]) -> str:
    """Return the laws that hold, as words."""
    return ", ".join(law.replace("_", " ") for law, holds in proof.items() if holds)


def gigabytes(size: int) -> str:
    """Return a number of bytes as people write it."""
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"
