"""`spgsurgeon strip`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.options import Force, Output, Weights, check_weights, height_and_width
from spgsurgeon.cli.terminal.text import columns, pairs, proof_lines


def command(
    source: Annotated[
        Path, typer.Argument(metavar="RUN_OR_DIR", help="A run (its best checkpoint) or a grafted folder.")
    ],
    output: Output,
    export: Annotated[
        list[str] | None,
        typer.Option("--export", metavar="safetensors|pt|onnx", help="Format to write; may be given several times."),
    ] = None,
    weights: Weights = None,
    reference: Annotated[
        str | None, typer.Option("--reference", metavar="MODEL", help="Prove the layout against this model too.")
    ] = None,
    opset: Annotated[
        int | None, typer.Option("--opset", help="ONNX opset; the exporter's default if left out.")
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", metavar="N|HxW", help="Pixels of an ONNX file's pictures, which it fixes; the model's own."
        ),
    ] = None,
    onnx_outputs: Annotated[
        str | None,
        typer.Option("--onnx-outputs", metavar="main|all", help="Logits alone, or the auxiliary head's too."),
    ] = None,
    force: Force = False,
) -> None:
    """Write the base without replicas, proven.

    What fails the proof is not written.

    Example: `spgsurgeon strip runs/digits -o better/ --export safetensors --export onnx`
    """
    from spgsurgeon.commands.strip import strip_folder

    check_weights(weights)
    with working("stripping, proving, writing"):
        document = strip_folder(
            source,
            output,
            exports=export or [],
            weights=weights,
            reference=reference,
            opset=opset,
            image_size=height_and_width(image_size),
            onnx_outputs=onnx_outputs,
            force=force,
        )
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    rows = [(o["path"], o["format"], f"{o['largest_difference']:.2g}") for o in document["outputs"]]
    written = columns(("written", "format", "largest difference"), rows)
    proof = pairs([("proof", proof_lines(document["proof"])), ("content hash", document["outputs"][0]["content_hash"])])
    return Group(written, proof)
