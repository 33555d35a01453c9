"""`spgsurgeon report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.comparison import verdict
from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.options import Force
from spgsurgeon.cli.terminal.text import columns, pairs, score_line


def command(
    folders: Annotated[
        list[Path],
        typer.Argument(metavar="RUN|COMPARISON...", help="Folders of runs and of comparisons.", show_default=False),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("report"),
    force: Force = False,
) -> None:
    """Show what runs recorded, over each other, and what comparisons found.

    One HTML page that needs no network, and its figures as PNG files: scores, losses, episodes by class, the images
    that are right longest and shortest, throughput; of a comparison its verdicts, tables and cost. Runs and comparisons
    may be unfinished.

    Example: `spgsurgeon report runs/spg runs/plain -o report/`
    """
    from spgsurgeon.commands.report import report

    with working("drawing"):
        document = report(folders, output, force=force)
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    parts: list[Any] = []
    for found in document["comparisons"]:
        of = "" if found["runs_planned"] is None else f" of {found['runs_planned']}"
        verdicts = [(name, verdict(arm["verdict"])) for name, arm in found["arms"].items() if arm["verdict"]]
        unfinished = f"not finished, {found['runs_done']}{of} runs done"
        parts += [pairs([("comparison", found["comparison"]), *(verdicts or [("", unfinished)])]), ""]
    if document["runs"]:
        rows = [(r["run"], r["epochs"], *(_score(r[name]) for name in ("original", "best"))) for r in document["runs"]]
        parts += [columns(("run", "epochs", "original", "best"), rows), ""]
    written = pairs([("page", document["page"]), ("figures", f"{len(document['figures'])} PNG files beside it")])
    return Group(*parts, written)


def _score(scores: dict[str, Any] | None) -> str:
    return "none yet" if scores is None else score_line(scores)
