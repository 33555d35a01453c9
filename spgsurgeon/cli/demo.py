"""`spgsurgeon demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.console import emit, note
from spgsurgeon.cli.terminal.options import Force
from spgsurgeon.cli.terminal.text import columns, pairs, proof_lines


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the runs and the stripped model go.")] = Path(
        "spgsurgeon-demo"
    ),
    force: Force = False,
) -> None:
    """Do the whole job on handwritten digits.

    A base, then SPG and its control compared (five seeds, three learning rates each), strip, ONNX. No network, no GPU.

    Example: `spgsurgeon demo -o demo/`
    """
    from spgsurgeon.commands.demo import demo

    emit(demo(output, force=force, say=note), _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    from spgsurgeon.comparing import HEAD, remarks, rows

    names = ("base", "plain", "spg")
    scores = [(row["seed"], *(f"{row[name]:.2f}" for name in names)) for row in document["seeds"]]
    scores.append(("mean", *(f"{document['mean'][name]:.2f}" for name in names)))
    return Group(
        columns(("seed", "base", "plain", "SPG"), scores),
        "",
        columns(HEAD, rows(document["comparison"])),
        "",
        pairs(
            [
                *remarks(document["comparison"]),
                ("compared by", document["command"]),
                ("proof", proof_lines(document["proof"])),
                ("ONNX", f"largest difference of a logit {document['onnx_largest_difference']:.2g}"),
                ("files", ", ".join(document["outputs"])),
            ]
        ),
    )
