"""`spgsurgeon diff`: what became of a model's tensors. Any two state dicts will do; no architecture is needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from spgsurgeon.checkpoint import (
    DTYPE_NAMES,
    MANIFEST,
    Distance,
    content_hash,
    content_hash_of,
    distance,
    drift,
    load_tensors,
    together,
)
from spgsurgeon.loading import Located, ModelRequest, locate, open_model, state_of
from spgsurgeon.models import NamedModel, catalogue, main_parts, parse_model

Layout = dict[str, tuple[str, tuple[int, ...]]]


@dataclass(frozen=True)
class _Side:
    """One of the two: dtype and shape of each key, in its order, and how to get the values of one."""

    source: str
    format: str
    layout: Layout
    load: Callable[[str], Tensor]
    content_hash: str
    head: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Return the shape of a tensor, None if there is no such key."""
        return self.layout[key][1] if key in self.layout else None

    def describe(self) -> dict[str, Any]:
        """Return what this side is, as plain data."""
        return {
            "source": self.source,
            "format": self.format,
            "tensors": len(self.layout),
            "content_hash": self.content_hash,
        }


def diff(a: str, b: str, *, weights: str | None = None) -> dict[str, Any]:
    """Return the document of `diff --json` for the models that `a` and `b` name.

    A relative change is ||b - a|| / ||a||; where there is none it is None and `undefined` says why: `zero` (all of a
    is zero) or `non_finite`. `changed` lists tensors of one shape whose values differ, or, within one dtype, any bit.
    `layers` sums up what each module learnt; running statistics would drown it and have a list of their own, their
    drift. `weights` (`ema`, `raw`, None) is for both sides. Files are read a tensor at a time. Raises what opening a
    model raises.
    """
    left, right = _open(a, weights), _open(b, weights)
    identical = left.content_hash == right.content_hash
    distances = {} if identical else _distances(left, right)
    differences = _layout_differences(left.layout, right.layout)
    changed = [key for key, apart in distances.items() if _is_changed(key, apart, left.layout, right.layout)]
    touched = {entry["key"] for name in ("dtype_changed", "shape_changed") for entry in differences[name]}
    common = [key for key in left.layout if key in right.layout]
    learnt = {key: apart for key, apart in distances.items() if _is_learnt(key, left.layout[key][0])}
    return {
        "identical": identical,
        "a": left.describe(),
        "b": right.describe(),
        **differences,
        "changed": [{"key": key, **_relative(distances[key])} for key in changed],
        "unchanged": len(set(common) - touched - set(changed)),
        **_relative(together(learnt.values())),
        "layers": _layers(learnt),
        "batch_norm_drift": _batch_norm_drift(left, right, distances),
        "head": _head(left, right, {*touched, *changed}),
        "notes": list(dict.fromkeys([*left.notes, *right.notes])),
    }


def _open(model: str, weights: str | None) -> _Side:
    named = parse_model(model)
    if isinstance(named, NamedModel):
        return _open_named(model)
    # Nothing is checked, as the hash below says as much without a second reading.
    located = locate(named, weights, check=False, described=False)
    entries = located.outline.entries

    def load(key: str) -> Tensor:
        return load_tensors({key: entries[key]})[key]

    layout = {key: (spec.dtype, spec.shape) for key, spec in entries.items()}
    found = content_hash_of(entries)
    notes = [*located.notes, *_edited(located, found)]
    head = _recorded_head(located) or _known_head(layout)
    return _Side(located.source, located.format, layout, load, found, head, notes)


def _open_named(model: str) -> _Side:
    """Return the weights of a model by name, which its library holds in memory all at once."""
    opened = open_model(ModelRequest(model))
    state = state_of(opened.module)
    layout = {key: (DTYPE_NAMES[value.dtype], tuple(value.shape)) for key, value in state.items()}
    head = _known_head(layout)
    return _Side(model, opened.format, layout, state.__getitem__, content_hash(state), head, opened.notes)


def _edited(located: Located, found: str) -> list[str]:
    """Return the note that a grafted folder's weights, whose hash is `found`, are not those it was written with."""
    manifest = located.manifest
    if manifest is None or located.outline.weights == "ema" or manifest.weights_hash == found:
        return []
    return [f"the weights in {located.folder} are not those that its {MANIFEST} was written for"]


def _recorded_head(located: Located) -> tuple[str, ...] | None:
    """Return the modules that make the logits, as the manifest of a grafted folder names them; depth's does not."""
    if located.manifest is None or located.manifest.site.get("side") == "output":
        return None
    module = located.manifest.site["module"]
    return (module,) if isinstance(module, str) else tuple(dict.fromkeys(module))


def _known_head(layout: Layout) -> tuple[str, ...] | None:
    """Return the modules that make the logits, where the keys are those of known models and all of these agree."""
    known = catalogue()
    for part in main_parts({key: shape for key, (_, shape) in layout.items()}):
        entries = [known.entry(row) for row in known.rows_with("key_hash", part.key_hash)]
        heads = {tuple(dict.fromkeys(part.prefix + head.module for head in entry.heads)) for entry in entries}
        if heads:
            return (heads.pop() or None) if len(heads) == 1 else None
    return None


def _distances(left: _Side, right: _Side) -> dict[str, Distance]:
    """Return how far the tensors of equal key and shape are apart. No two keys' values are in memory together."""
    comparable = [key for key in left.layout if left.shape(key) == right.shape(key)]
    return {key: distance(left.load(key), right.load(key)) for key in comparable}


def _is_changed(key: str, apart: Distance, left: Layout, right: Layout) -> bool:
    """Within one dtype every bit counts (-0.0 is not 0.0); across dtypes the values do."""
    return not apart.same_bits if left[key][0] == right[key][0] else apart.squared_change != 0


def _layout_differences(left: Layout, right: Layout) -> dict[str, Any]:
    common = [key for key in left if key in right]
    return {
        "added": [key for key in right if key not in left],
        "removed": [key for key in left if key not in right],
        "dtype_changed": [
            {"key": key, "from": left[key][0], "to": right[key][0]} for key in common if left[key][0] != right[key][0]
        ],
        "shape_changed": [
            {"key": key, "from": list(left[key][1]), "to": list(right[key][1])}
            for key in common
            if left[key][1] != right[key][1]
        ],
        "order_changed": common != [key for key in right if key in left],
    }


def _relative(apart: Distance) -> dict[str, Any]:
    return {"relative_change": apart.relative_change, "undefined": apart.undefined}


def _layers(distances: Mapping[str, Distance]) -> list[dict[str, Any]]:
    """Return the relative change of each module that changed, the largest first, undefined ones before them."""
    modules: dict[str, list[Distance]] = {}
    for key, apart in distances.items():
        modules.setdefault(key.rpartition(".")[0], []).append(apart)
    found = [{"module": module, **_relative(together(parts))} for module, parts in modules.items()]
    return _largest_first([entry for entry in found if entry["relative_change"] != 0], "relative_change")


def _batch_norm_drift(left: _Side, right: _Side, distances: Mapping[str, Distance]) -> list[dict[str, Any]]:
    """Return the drift of each module with running statistics that differ, the largest shift of the mean first."""
    found = []
    for mean in distances:
        module, dot, name = mean.rpartition(".")
        variance = f"{module}{dot}running_var"
        is_pair = name == "running_mean" and variance in distances and left.shape(mean) == left.shape(variance)
        if is_pair and not (distances[mean].same_bits and distances[variance].same_bits):
            moved = drift(left.load(mean), left.load(variance), right.load(mean), right.load(variance))
            found.append({"module": module, **asdict(moved)})
    return _largest_first(found, "mean_shift")


def _largest_first(entries: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return sorted(entries, key=lambda entry: float("inf") if entry[name] is None else entry[name], reverse=True)


def _head(left: _Side, right: _Side, different: Iterable[str]) -> dict[str, Any] | None:
    """Return the modules that make the logits, a name or a list, and whether they are the same on both sides."""
    head = left.head or right.head
    if head is None:
        return None
    inside = tuple(f"{module}." for module in head)
    ours, theirs = ({key for key in side.layout if key.startswith(inside)} for side in (left, right))
    module = head[0] if len(head) == 1 else list(head)
    return {"module": module, "identical": ours == theirs and not ours & set(different)}


def _is_learnt(key: str, dtype: str) -> bool:
    """Return whether a tensor is of numbers that an optimizer can change: no statistics, counters or masks."""
    return dtype[0] in "FBC" and dtype != "BOOL" and not key.endswith(("running_mean", "running_var"))
