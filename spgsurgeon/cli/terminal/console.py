"""What people and scripts see: data on stdout, everything else on stderr.

rich is imported when something is drawn, so that `--json` and `--help` do without.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from functools import cache
from typing import IO, TYPE_CHECKING, Any, NoReturn, TextIO, cast

import typer

from spgsurgeon.cli.terminal.first_line import clear_first_line
from spgsurgeon.cli.terminal.text import in_one_line, printable
from spgsurgeon.errors import SurgeonError
from spgsurgeon.runtime import as_json

if TYPE_CHECKING:
    from rich.console import Console


@dataclass
class Verbosity:
    """The options that every command has; set while the command line is parsed."""

    json: bool = False
    quiet: bool = False
    verbose: int = 0
    stdout: TextIO | None = None
    """Where data goes while a command keeps everybody else off stdout."""
    noted: set[str] = field(default_factory=set)
    """What was said already, while a command went on: its document says it again."""


verbosity = Verbosity()

_UNLIMITED = 100_000  # characters


def console(*, stderr: bool) -> Console:
    """Return the console that draws on stderr, or on stdout; the first line of a terminal goes."""
    clear_first_line()
    return _console(stderr=stderr)


@cache
def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    file = cast(IO[str], _Stderr()) if stderr else None
    return Console(stderr=stderr, file=file, highlight=False, soft_wrap=True)


class _Stderr:
    """What is sys.stderr at the time, and nothing once that can't be written to, as a terminal that hung up.

    A run must not end because nobody can be told how it goes.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @property
    def _stream(self) -> TextIO:
        stream: TextIO = getattr(sys.stderr, "rich_proxied_file", sys.stderr)  # while a bar is drawn
        return stream

    def write(self, text: str) -> int:
        """Write as far as it goes."""
        with _if_it_can():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """See `write`."""
        with _if_it_can():
            self._stream.flush()


@contextmanager
def _if_it_can() -> Iterator[None]:
    try:
        yield
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # for all others who write there, Python at its end among them


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
    """Whether this process prints results and notes: under torchrun only the first one does."""
    return not is_one_of_several() or os.environ["RANK"] == "0"


def is_one_of_several() -> bool:
    """Whether torchrun started other processes beside this one."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and "RANK" in os.environ


_ONES_OWN = ("failed", "data")
"""Kinds of failures that one process of several may have alone; the others come from what all of them are given."""


@contextmanager
def working(doing: str) -> Iterator[None]:
    """Say on a terminal what is being done, while it takes its seconds."""
    if verbosity.quiet or not speaks() or not sys.stderr.isatty():
        yield
        return
    with console(stderr=True).status(f"{doing} ..."):
        yield


def emit(document: Mapping[str, Any], render: Callable[[Any], object]) -> None:
    """Print a command's result: the document with --json, else what `render` makes of it; then its notes."""
    if not speaks():
        return
    for text in document.get("notes", []):
        if text not in verbosity.noted:
            note(text)
    with redirect_stdout(verbosity.stdout or sys.stdout):
        if verbosity.json:
            _print(as_json(document, indent=2))
        else:
            _show(render(document))


def _show(rendered: Any) -> None:
    """Print to stdout: wrapped to a terminal's width; into a pipe or a file a row a line, however long it is."""
    out = console(stderr=False)
    if out.is_terminal:
        out.print(rendered)
        return
    out.width = _UNLIMITED
    with out.capture() as captured:
        out.print(rendered)
    _print("\n".join(line.rstrip() for line in captured.get().splitlines()))


class ClosedOutputError(SurgeonError):
    """stdout can't be written to."""

    kind = "output"


def _print(text: str) -> None:
    """Print data to stdout, all of it now: a full disk is an error of the command, and no matter of Python's exit.

    Raises ClosedOutputError; BrokenPipeError where the reader has gone, as `head` does.
    """
    clear_first_line()
    try:
        print(text, flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _drop_stdout()
        raise ClosedOutputError(f"stdout can't be written to: {error.strerror}", code="stdout-failed") from error


def _drop_stdout() -> None:
    """Let what is still in stdout's buffer go nowhere, or Python would fail with it once more at its exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def note(text: str) -> None:
    """Say something that is not data, unless --quiet."""
    if speaks() and not verbosity.quiet and not verbosity.json:
        verbosity.noted.add(text)
        _say("note", in_one_line(text), style="dim")


def stage(text: str) -> None:
    """Say how far a long command is, unless --quiet: with --json too, as no document says it again."""
    if speaks() and not verbosity.quiet:
        _say("note", in_one_line(text), style="dim")


def fail(error: SurgeonError) -> None:
    """Print what went wrong: one line, and what to do next; with --json the error document on stdout.

    Under torchrun each process says on stderr what may be its own failure alone, with its rank, and the first one on
    each machine what all have alike; the document is the first one's.
    """
    if verbosity.json and speaks() and not isinstance(error, ClosedOutputError):
        said = {"kind": error.kind, "code": error.code, "message": error.message, "hint": error.hint, **error.details}
        try:
            _print(as_json({"error": said, "exit_code": error.exit_code}, indent=2))
        except ClosedOutputError:  # the document can't be had; what went wrong first still counts
            _say_failure(error.message, error.hint)
    elif error.kind in _ONES_OWN and is_one_of_several():
        _say_failure(f"process {os.environ['RANK']}: {error.message}", error.hint)
    elif not is_one_of_several() or os.environ.get("LOCAL_RANK", "0") == "0":
        _say_failure(error.message, error.hint)


def leave_with_error(document: Mapping[str, Any]) -> NoReturn:
    """Leave with the exit code of a document that was printed and has an `error` of its own, which is said first."""
    if speaks() and not verbosity.json:
        _say_failure(document["error"]["message"], document["error"]["hint"])
    raise typer.Exit(document["exit_code"])


def _say_failure(message: str, hint: str | None) -> None:
    _say("error", message.replace("\n", "\n       "), style="bold red")  # several faults stand below each other
    if hint:
        _say("hint", hint, style="dim")


def _say(kind: str, text: str, style: str) -> None:
    from rich.markup import escape

    console(stderr=True).print(f"[{style}]{kind}:[/{style}] {escape(printable(text))}")
