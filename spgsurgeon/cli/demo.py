"""`spgsurgeon demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.console import columns, emit, note, pairs, proof_lines
from spgsurgeon.cli.options import Force


def command(
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the runs and the stripped model go.")] = Path(
        "spgsurgeon-demo"
    ),
    force: Force = False,
) -> None:
    """Do the whole job on handwritten digits.

    A base, SPG and its control at three learning rates each, strip, ONNX; three seeds. No network, no GPU.

    Example: `spgsurgeon demo -o demo/`
    """
    from spgsurgeon.workflows.demo import demo

    emit(demo(output, force=force, say=note), _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    rows: list[tuple[object, ...]] = [
        (
            row["seed"],
            f"{row['base']:.2f}",
            f"{row['plain']:.2f}  (lr {row['plain_learning_rate']})",
            f"{row['spg']:.2f}  (lr {row['spg_learning_rate']})",
        )
        for row in document["seeds"]
    ]
    mean = document["mean"]
    rows.append(("mean", *(f"{mean[arm]:.2f}" for arm in ("base", "plain", "spg"))))
    difference = mean["spg"] - mean["plain"]
    return Group(
        columns(("seed", "base", "plain", "SPG"), rows),
        pairs(
            [
                ("", "top-1 % on 697 test pictures; learning rates chosen on 500 others"),
                (
                    "SPG - plain",
                    f"{difference:+.2f} points, mean of {len(rows) - 1} seeds: too few to show a difference",
                ),
                ("proof", proof_lines(document["proof"])),
                ("ONNX", f"largest difference of a logit {document['onnx_largest_difference']:.2g}"),
                ("files", ", ".join(document["outputs"])),
            ]
        ),
    )
