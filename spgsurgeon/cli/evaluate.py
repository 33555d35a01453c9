"""`spgsurgeon eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.console import emit, pairs
from spgsurgeon.cli.options import Arch, Model, Weights, check_weights


def command(
    model: Model,
    data: Annotated[str, typer.Option("--data", help="An image-folder tree, digits, torch/NAME or hfds/NAME.")],
    data_path: Annotated[Path | None, typer.Option("--data-path", help="Where torch/ and hfds/ data lies.")] = None,
    split: Annotated[str, typer.Option("--split", help="Split or sub-folder.")] = "val",
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Pixels; the model's own if left out.")
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 64,
    workers: Annotated[int | None, typer.Option("--workers", min=0, help="Loader processes; by the machine.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:N, mps.")] = "auto",
    precision: Annotated[str, typer.Option("--precision", help="auto, float32, bfloat16, float16.")] = "auto",
    arch: Arch = None,
    weights: Weights = None,
) -> None:
    """Score a model on a data set.

    Top-1, top-5, loss and throughput, loading included.

    Example: `spgsurgeon eval better/ --data /data/imagenet --split val`
    """
    from spgsurgeon.workflows.evaluate import evaluate_model

    check_weights(weights)
    document = evaluate_model(
        model,
        data,
        path=data_path,
        split=split,
        weights=weights,
        arch=arch,
        image_size=image_size,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
    )
    emit(document, _render)


def _render(document: dict[str, Any]) -> Any:
    height, width = document["image_size"]
    return pairs(
        [
            ("data", f"{document['data']}, {document['samples']} pictures at {height} x {width} pixels"),
            ("top-1", f"{document['top1']:.3f} %"),
            ("top-5", f"{document['top5']:.3f} %"),
            ("loss", f"{document['loss']:.4f}"),
            ("speed", f"{document['images_per_second']:.0f} images/s, loading included"),
        ]
    )
