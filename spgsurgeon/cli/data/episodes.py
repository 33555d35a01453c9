"""`spgsurgeon episodes`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.console import emit
from spgsurgeon.cli.terminal.text import columns, pairs

Run = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, trained with training.record_episodes.", show_default=False)
]
Worst = Annotated[
    int | None, typer.Option("--worst", min=1, help="How many samples.", show_default="50; with --csv or --json all")
]


def command(
    run: Run,
    worst: Worst = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values, a column an epoch.")] = False,
) -> None:
    """Say which training samples a run accepts least.

    Wrongly labelled samples and hard ones are among them. A sample's accepted step is how many steps its prediction
    stays right for; 0 is where the base itself is wrong.

    Example: `spgsurgeon episodes runs/spg --worst 50`
    """
    from spgsurgeon.cli.terminal.console import verbosity
    from spgsurgeon.commands.data.episodes import episodes

    everything = as_csv or verbosity.json
    document = episodes(run, worst if worst is not None or everything else 50)
    emit(document, _as_csv if as_csv else _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    steps = f"0 to {len(document['steps']) - 1}, {document['accepts']} {', '.join(document['steps'])}"
    rows = [
        ("samples", f"{document['seen']:,} of {document['samples']:,} were seen in {len(document['epochs'])} epochs"),
        ("never right", f"{document['never']:,}"),
        ("steps", steps),
    ]
    table = columns(
        ("sample", "class", "mean step", "first right", "last step"),
        [(one["name"], one["class"], f"{one['mean_step']:.2f}", *_ends(one)) for one in document["worst"]],
    )
    return Group(pairs(rows), "", table)


def _ends(one: dict[str, Any]) -> tuple[str, str]:
    """Return the first epoch in which the base was right, and the step of the last."""
    first, last = one["first"], one["accepted"][-1]
    return "never" if first is None else f"epoch {first}", "-" if last is None else str(last)


def _as_csv(document: dict[str, Any]) -> str:
    text = io.StringIO()
    head = ["sample", "name", "class", "mean_step", "first", *(f"epoch {epoch}" for epoch in document["epochs"])]
    rows = [
        [*(one[key] for key in ("sample", "name", "class", "mean_step", "first")), *one["accepted"]]
        for one in document["worst"]
    ]
    csv.writer(text, lineterminator="\n").writerows([head, *rows])
    return text.getvalue().rstrip("\n")
