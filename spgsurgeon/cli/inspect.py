"""`spgsurgeon inspect`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.console import emit, leave_with_error, working
from spgsurgeon.cli.terminal.options import (
    Arch,
    ImageSize,
    MapKeys,
    Model,
    RandomWeights,
    Weights,
    check_weights,
    height_and_width,
)
from spgsurgeon.cli.terminal.text import columns, millions, pairs, several
from spgsurgeon.models import outputs_in_words
from spgsurgeon.replicas.kinds import kind_named, replicas_from

_SHOWN = 8


def command(
    model: Model,
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    values: Annotated[
        bool | None,
        typer.Option(
            "--values/--no-values",
            help="Read the weights themselves: content hash, NaN and infinity. Unasked, up to 64 MB of them.",
            show_default=False,
        ),
    ] = None,
    arch: Arch = None,
    map_keys: MapKeys = None,
    weights: Weights = None,
    random_weights: RandomWeights = False,
    image_size: ImageSize = None,
) -> None:
    """Say what a checkpoint is.

    And where replicas would attach, what they would cost, and what to run next. Files and folders are recognised by
    their keys and shapes where they don't say what they are; nothing in them is executed.

    Example: `spgsurgeon inspect model_best.pth.tar`
    """
    from spgsurgeon.commands.inspect import inspect

    check_weights(weights)
    seed = 0 if random_weights else None
    size = height_and_width(image_size)
    with working("reading"):
        document = inspect(
            model,
            weights=weights,
            arch=arch,
            tensors=tensors,
            random_seed=seed,
            values=values,
            image_size=size,
            map_keys=map_keys,
        )
    emit(document, _render)
    if "error" in document:
        leave_with_error(document)


def _render(document: dict[str, Any]) -> Any:
    from rich.console import Group

    rows = [(name, value) for name, value in _rows(document) if value]
    if "tensor_list" not in document:
        return pairs(rows)
    listed = [(t["key"], t["dtype"], "x".join(map(str, t["shape"])) or "scalar") for t in document["tensor_list"]]
    return Group(pairs(rows), columns(("tensor", "dtype", "shape"), listed))


def _rows(document: dict[str, Any]) -> list[tuple[str, str | None]]:
    """Return names and values; what is not known, or not there, has none."""
    bad, unread = document["non_finite"], document["content_hash"] is None
    return [
        ("source", document["source"]),
        ("format", _format(document)),
        ("prefixes", " ".join(document["prefixes"])),
        ("architecture", _architecture(document)),
        ("task", document["task"]),
        *_differences(document.get("differences", {})),
        ("evidence", document.get("evidence")),
        ("head", _head(document)),
        ("labels", _labels(document.get("labels"))),
        ("shared weights", "the head's are those of the words" if document.get("tied") else None),
        ("tokenizer", _tokenizer(document)),
        ("parameters", _size(document)),
        ("dtypes", ", ".join(f"{count} {dtype}" for dtype, count in document["dtypes"].items())),
        ("beside it", ", ".join(document.get("unexpected", []))),
        ("grafted", _grafted(document["grafted"])),
        ("content hash", "the weights were not read (--values)" if unread else document["content_hash"]),
        *((f"{kind}-TRP", _site(kind, site)) for kind, site in document["sites"].items()),
        ("not known", _unknown(document)),
        ("NaN or infinity", ", ".join(bad or [])),
        ("next", document["next"]),
    ]


def _grafted(trp: dict[str, Any] | None) -> str | None:
    """Return the kind of the replicas that are there, and their settings."""
    return None if trp is None else replicas_from(trp).words()


def _format(document: dict[str, Any]) -> str:
    if document["format"] == "name":
        return "a model by name"
    producer = document["producer"]
    return f"{document['format']}, written by {producer}" if producer else str(document["format"])


def _architecture(document: dict[str, Any]) -> str:
    if document["architecture"]:
        return f"{document['library']}/{document['architecture']}"
    return f"not told; perhaps {' or '.join(document['candidates'])}" if document["candidates"] else "unknown"


def _differences(found: dict[str, dict[str, Any]]) -> list[tuple[str, str | None]]:
    """Return what differs between architectures, a row a trait."""
    return [
        (trait.replace("_", " "), "; ".join(f"{name}: {several(value) or 'none'}" for name, value in of_each.items()))
        for trait, of_each in found.items()
    ]


def _size(document: dict[str, Any]) -> str:
    tensors = f"{document['tensors']} tensors"
    return tensors if document["parameters"] is None else f"{millions(document['parameters'])} in {tensors}"


def _head(document: dict[str, Any]) -> str | None:
    head = document["head"]
    if head is None:
        return None if "error" in document else "none"
    module, kind, width = (_each_once(head[key]) for key in ("module", "type", "width"))
    return f"{module} ({kind}, {width} -> {outputs_in_words(document['task'], head['classes'])})"


def _labels(labels: list[str] | None) -> str | None:
    if not labels:
        return None
    more = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + more


def _tokenizer(document: dict[str, Any]) -> str | None:
    """Return whether the files of a tokenizer are there; nothing for models that need none."""
    if "tokenizer" not in document:
        return None
    return "its files are there" if document["tokenizer"] else "none beside it"


def _each_once(value: Any) -> str:
    return several(list(dict.fromkeys(value)) if isinstance(value, list) else value)


def _site(kind: str, site: dict[str, Any]) -> str:
    """Return where replicas of a kind would attach, and at what cost."""
    return f"{kind_named(kind).site_in_words(site)}, {millions(site['temporary_parameters'])} temporary"


def _unknown(document: dict[str, Any]) -> str | None:
    """Return the kinds whose sites no file tells, and the command that does."""
    if not document["sites_unknown"]:
        return None
    model = f"{document['library']}/{document['architecture']}"
    return (
        f"where {', '.join(document['sites_unknown'])} attach, only the built model tells: "
        f"spgsurgeon inspect {model} --random-weights"
    )
