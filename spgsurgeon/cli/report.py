"""`spgsurgeon report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.console import METRICS, columns, emit, main_metric, pairs, working
from spgsurgeon.cli.options import Force


def command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder to write.")] = Path("report"),
    force: Force = False,
) -> None:
    """Show what runs recorded, over each other.

    One HTML page that needs no network, and its figures as PNG files: scores, losses, episodes by class, the pictures
    that are right longest and shortest, throughput. Runs may be unfinished.

    Example: `spgsurgeon report runs/spg runs/plain -o report/`
    """
    from spgsurgeon.workflows.report import report

    with working("drawing"):
        document = report(runs, output, force=force)
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    rows = [
        (run["run"], run["epochs"], *(_score(run[name]) for name in ("original", "best"))) for run in document["runs"]
    ]
    written = pairs([("page", document["page"]), ("figures", f"{len(document['figures'])} PNG files beside it")])
    return Group(columns(("run", "epochs", "original", "best"), rows), "", written)


def _score(scores: dict[str, Any] | None) -> str:
    if scores is None:
        return "none yet"
    metric = main_metric(scores)
    return f"{METRICS[metric]} {scores[metric]:.2f} %"
