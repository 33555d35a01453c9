"""`spgsurgeon inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spgsurgeon.cli.console import columns, emit, millions, pairs
from spgsurgeon.cli.options import Arch, Model, RandomWeights, Weights, check_weights


def command(
    model: Model,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    arch: Arch = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
) -> None:
    """Say what a checkpoint is.

    And where replicas would attach, what they would cost, and what to run next.

    Example: `spgsurgeon inspect model_best.pth.tar`
    """
    from spgsurgeon.workflows.inspect import inspect

    check_weights(weights)
    document = inspect(model, weights=weights, arch=arch, tensors=tensors, random_seed=0 if random_weights else None)
    emit(document, _render)


def _format(document: dict[str, Any]) -> str:
    if document["format"] == "name":
        return "a model by name"
    producer = document["producer"]
    return f"{document['format']}, written by {producer}" if producer else str(document["format"])


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    head, site = document["head"], document["sites"]["dropout"]
    rows: list[tuple[str, object]] = [
        ("source", document["source"]),
        ("format", _format(document)),
        ("architecture", f"{document['library']}/{document['architecture']}"),
        ("head", f"{head['module']} ({head['type']}, {head['width']} -> {head['classes']} classes)"),
        ("parameters", f"{millions(document['parameters'])} in {document['tensors']} tensors"),
        ("dtypes", ", ".join(f"{count} {dtype}" for dtype, count in document["dtypes"].items())),
        ("content hash", document["content_hash"]),
        ("dropout-TRP", f"at the input of {site['module']}: {millions(site['temporary_parameters'])} temporary"),
        ("next", document["next"]),
    ]
    if document["prefixes"]:
        rows.insert(2, ("prefixes", " ".join(document["prefixes"])))
    if document["non_finite"]:
        rows.insert(-1, ("NaN or infinity", ", ".join(document["non_finite"])))
    if "tensor_list" not in document:
        return pairs(rows)
    listed = [(t["key"], t["dtype"], "x".join(map(str, t["shape"])) or "scalar") for t in document["tensor_list"]]
    return Group(pairs(rows), columns(("tensor", "dtype", "shape"), listed))
