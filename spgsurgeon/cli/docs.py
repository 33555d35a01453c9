"""`spgsurgeon docs`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import topics
from spgsurgeon.cli.terminal.console import emit
from spgsurgeon.cli.terminal.text import columns

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

_WIDEST = 100  # columns: longer lines of prose are hard to read


def command(
    topic: Annotated[
        str | None,
        typer.Argument(
            metavar="TOPIC",
            help="Which guide to show; left out, all are listed.",
            show_default=False,
            autocompletion=topics,
        ),
    ] = None,
) -> None:
    """Show a guide, or list them.

    Guides are Markdown: rendered on a terminal, as they are in a pipe or a file.

    Example: `spgsurgeon docs recipes`
    """
    from spgsurgeon.docs import guide, guides

    if topic is None:
        emit({"topics": [{"topic": one.topic, "summary": one.summary} for one in guides()]}, _render_list)
    else:
        found = guide(topic)
        emit({"topic": found.topic, "text": found.text}, lambda document: _Page(document["text"]))


def _render_list(document: dict[str, Any]) -> Any:
    from rich.console import Group

    rows = [(one["topic"], one["summary"]) for one in document["topics"]]
    return Group(columns(("topic", "what it is about"), rows), "", "spgsurgeon docs TOPIC shows one of them")


class _Page:
    """Markdown: rendered on a terminal, wrapped at `_WIDEST`; anywhere else the text as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.markdown import Markdown
        from rich.text import Text

        if not console.is_terminal:
            yield Text(self._text.rstrip("\n"))
            return
        # The console leaves wrapping to the terminal, which would break words, tables and indented lists anywhere.
        width = min(console.width, _WIDEST)
        shown = options.update(width=width, no_wrap=False, overflow="fold")
        yield from console.render(Markdown(self._text, hyperlinks=False), shown)
