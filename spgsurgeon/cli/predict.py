"""`spgsurgeon predict`."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.options import Arch, MapKeys, Model, Weights, check_weights
from spgsurgeon.cli.terminal.text import columns
from spgsurgeon.runtime import DEVICES


def command(
    model: Model,
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="Images.", show_default=False)],
    top: Annotated[int, typer.Option("--top", min=1, help="Classes to name for each image.")] = 1,
    as_csv: Annotated[bool, typer.Option("--csv", help="Comma-separated values instead of a table.")] = False,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Height and width.", show_default="the model's own")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 64,
    device: Annotated[str, typer.Option("--device", help=f"{DEVICES}.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, float32, bfloat16, float16.")] = "auto",
    arch: Arch = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
) -> None:
    """Say which class a model sees in images, and how likely it is.

    Example: `spgsurgeon predict better/ cat.jpg dog.jpg --top 3`
    """
    from spgsurgeon.commands.predict import predict

    check_weights(weights)
    with working("predicting"):
        document = predict(
            model,
            files,
            weights=weights,
            arch=arch,
            map_keys=map_keys,
            image_size=image_size,
            top=top,
            batch_size=batch_size,
            device=device,
            precision=precision,
        )
    emit(document, _as_csv if as_csv else _render)


def _rows(document: dict[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (one["file"], found["class"], f"{found['probability']:.4f}")
        for one in document["predictions"]
        for found in one["top"]
    ]


def _render(document: dict[str, Any]) -> Any:
    return columns(("file", "class", "probability"), _rows(document))


def _as_csv(document: dict[str, Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("file", "class", "probability"), *_rows(document)])
    return text.getvalue().rstrip("\n")
