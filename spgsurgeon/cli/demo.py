"""`spgsurgeon demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.comparison import comparison_tables
from spgsurgeon.cli.terminal.console import emit, stage
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
    from spgsurgeon.cli.terminal.progress import ComparisonProgress
    from spgsurgeon.commands.demo import COMPARISON, demo

    with ComparisonProgress(output / COMPARISON):
        document = demo(output, force=force, say=stage)
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    from spgsurgeon.comparing import remarks

    names, onnx = ("base", "plain", "spg"), document["onnx_largest_difference"]
    scores = [(row["seed"], *(f"{row[name]:.2f}" for name in names)) for row in document["seeds"]]
    scores.append(("mean", *(f"{document['mean'][name]:.2f}" for name in names)))
    return Group(
        columns(("seed", "base", "plain", "SPG"), scores),
        "",
        *comparison_tables(document["comparison"]),
        "",
        pairs(
            [
                *remarks(document["comparison"]),
                ("compared by", document["command"]),
                ("proof", proof_lines(document["proof"])),
                *([("ONNX", f"largest difference of a logit {onnx:.2g}")] if onnx is not None else []),
                ("files", ", ".join(document["outputs"])),
            ]
        ),
    )
