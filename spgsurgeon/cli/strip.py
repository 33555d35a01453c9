"""`spgsurgeon strip`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import model_names, one_of
from spgsurgeon.cli.terminal.console import emit
from spgsurgeon.cli.terminal.options import Arch, Force, Output, Weights, check_weights, height_and_width
from spgsurgeon.cli.terminal.text import columns, pairs, proof_lines
from spgsurgeon.exporting import CARD, FILES, OPSETS


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="RUN_OR_DIR",
            help="A run (its best checkpoint), a grafted folder, or a file with the state dict of a grafted model.",
        ),
    ],
    output: Output,
    export: Annotated[
        list[str] | None,
        typer.Option(
            "--export",
            metavar="|".join(FILES),
            help="Format to write; may be given several times.",
            autocompletion=one_of(*FILES),
        ),
    ] = None,
    weights: Weights = None,
    arch: Arch = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", metavar="MODEL", help="Prove the layout against this model too.", autocompletion=model_names
        ),
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            "--opset", metavar="N", help=f"ONNX opset, {OPSETS[0]} to {OPSETS[-1]}; the exporter's default if left out."
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size", metavar="N|HxW", help="Pixels of the images of an ONNX or pt2 file; the model's own."
        ),
    ] = None,
    onnx_outputs: Annotated[
        str | None,
        typer.Option(
            "--onnx-outputs",
            metavar="main|all",
            help="Logits alone, or the auxiliary head's too.",
            autocompletion=one_of("main", "all"),
        ),
    ] = None,
    half: Annotated[
        bool, typer.Option("--half", help="Half precision in the ONNX or pt2 file; its input and output stay float32.")
    ] = False,
    force: Force = False,
) -> None:
    """Write the base without replicas, proven.

    What fails the proof is not written.

    Example: `spgsurgeon strip runs/digits -o better/ --export safetensors --export onnx`
    """
    from spgsurgeon.cli.terminal.progress import Bar
    from spgsurgeon.commands.strip import strip_folder

    check_weights(weights)
    with Bar("opening", "stages") as bar:
        document = strip_folder(
            source,
            output,
            exports=export or [],
            weights=weights,
            arch=arch,
            reference=reference,
            opset=opset,
            image_size=height_and_width(image_size),
            onnx_outputs=onnx_outputs,
            half=half,
            force=force,
            told=bar.told,
        )
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    outputs = document["outputs"]
    rows = [(o["path"], o["format"], f"{o['largest_difference']:.2g}") for o in outputs]
    written = columns(("written", "format", "largest difference"), rows)
    facts = [("proof", proof_lines(document["proof"])), ("content hash", outputs[0]["content_hash"])]
    folder = Path(outputs[0]["path"]).parent
    if outputs[0]["path"] == str(folder / FILES[outputs[0]["format"]]) and (folder / CARD).exists():
        facts.append(("to the Hub", shlex.join(["hf", "upload", "OWNER/NAME", str(folder)])))
    return Group(written, pairs(facts))
