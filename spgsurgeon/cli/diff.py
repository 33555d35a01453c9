"""`spgsurgeon diff`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import model_names
from spgsurgeon.cli.terminal.console import emit, working
from spgsurgeon.cli.terminal.options import Weights, check_weights
from spgsurgeon.cli.terminal.text import columns, pairs

_SIDE = "A model by name, a weights file or a folder, as MODEL is elsewhere."
_LAYOUT_WORDS = {
    "added": ("key added", "keys added"),
    "removed": ("key removed", "keys removed"),
    "shape_changed": ("shape differs", "shapes differ"),
    "dtype_changed": ("dtype differs", "dtypes differ"),
}
_UNDEFINED = {"zero": "was all zero", "non_finite": "NaN or infinity"}


def command(
    a: Annotated[str, typer.Argument(metavar="A", help=_SIDE, show_default=False, autocompletion=model_names)],
    b: Annotated[str, typer.Argument(metavar="B", help=_SIDE, show_default=False, autocompletion=model_names)],
    weights: Weights = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Rows of each list; --json has all of them.")] = 10,
) -> None:
    """Say what became of a model's tensors, from A to B.

    Keys, shapes, dtypes, how far each layer moved (|b - a| / |a|), the drift of batch norms, the head. Any two state
    dicts will do. The exit code is 0 whether they differ or not.

    Example: `spgsurgeon diff resnet50.pth better/ --top 5`
    """
    from spgsurgeon.commands.diff import diff

    check_weights(weights)
    with working("comparing"):
        found = diff(a, b, weights=weights)
    emit(found, lambda document: _render(document, top))


def _render(document: dict[str, Any], top: int) -> Any:
    from rich.console import Group

    parts: list[Any] = [_verdict(document), "", pairs(_properties(document))]
    for head, rows in _lists(document):
        if rows:
            more = f"... and {len(rows) - top} more" if len(rows) > top else None
            parts += ["", columns(head, rows[:top]), *([more] if more else [])]
    return Group(*parts)


def _verdict(document: dict[str, Any]) -> str:
    """Return the one line that most people came for."""
    count = document["a"]["tensors"]
    if document["identical"]:
        return f"identical: {count} tensors, to the bit"
    counted = [(len(document[name]), *words) for name, words in _LAYOUT_WORDS.items() if document[name]]
    parts = [f"{number} {one if number == 1 else many}" for number, one, many in counted] or ["same layout"]
    compared = count - len(document["removed"]) - len(document["shape_changed"])
    changed = len(document["changed"])
    if not compared:
        parts.append("no tensor to compare")
    else:
        parts.append(f"{changed} of {compared} tensors changed" if changed else "no value changed")
    if changed and document["relative_change"]:
        parts.append(f"by {_percent(document)} in all")
    return ", ".join(parts)


def _properties(document: dict[str, Any]) -> Iterator[tuple[str, object]]:
    for name in ("a", "b"):
        side = document[name]
        yield name.upper(), f"{side['source']} ({side['format']}, {side['tensors']} tensors)"
        yield "", f"content hash {side['content_hash']}"
    if document["head"]:
        module = document["head"]["module"]
        names = module if isinstance(module, str) else ", ".join(module)
        yield "head", f"{names}: {'identical' if document['head']['identical'] else 'differs'}"
    casts = Counter((entry["from"], entry["to"]) for entry in document["dtype_changed"])
    if casts:
        yield "dtypes", ", ".join(f"{count} {old} -> {new}" for (old, new), count in casts.items())
    if document["order_changed"]:
        yield "order", "the keys that both have stand in another order"


def _lists(document: dict[str, Any]) -> Iterator[tuple[Sequence[str], list[Sequence[object]]]]:
    """Yield a head and all rows for each list, what concerns the layout first."""
    yield ("only in A",), [(key,) for key in document["removed"]]
    yield ("only in B",), [(key,) for key in document["added"]]
    yield ("shape", "A", "B"), [(e["key"], _shape(e["from"]), _shape(e["to"])) for e in document["shape_changed"]]
    yield ("layer", "change"), [(_module(entry), _percent(entry)) for entry in document["layers"]]
    yield (
        ("batch norm", "shift of the mean", "variance"),
        [(_module(entry), *_drift(entry)) for entry in document["batch_norm_drift"]],
    )


def _module(entry: dict[str, Any]) -> str:
    return entry["module"] or "(the model's own)"


def _percent(entry: dict[str, Any]) -> str:
    change = entry["relative_change"]
    return f"{100 * change:.3g} %" if change is not None else _UNDEFINED[entry["undefined"]]


def _drift(entry: dict[str, Any]) -> tuple[str, str]:
    if entry["mean_shift"] is None:
        return "no usable channel", ""
    return f"{entry['mean_shift']:.3g} standard deviations", f"x {entry['variance_ratio']:.3g}"


def _shape(sizes: list[int]) -> str:
    return "x".join(map(str, sizes)) or "scalar"
