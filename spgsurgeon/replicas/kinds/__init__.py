"""The kinds of replicas, each a file or folder of its own, and their registry.

A kind is a section of the recipe, `trp`, that also says everything else the package needs to know of it: see
`ReplicaKind` in `kind.py`. Nothing outside this room names a kind. What a chain of replicas promises:

- It makes hidden states `h_0 .. h_T` of what passes its place, `h_0` being the base's own; the shared head reads each.
- A replica changes nothing at its start but by its perturbation: what a module without parameters, buffers and children
  does in train mode (dropout, noise). With that module in eval mode, `h_t` of a fresh graft is `h_0` bit for bit.
- Shape, dtype and device stay those of `h_0`; a replica fits the head, or the stage, that it is made for.
- In eval mode nothing of it runs, and it holds no tensor of the base, so it comes off without a trace.

Modules with torch in them are imported where they are used: a recipe is checked without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from spgsurgeon.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from spgsurgeon.replicas.kinds.kind import ReplicaKind

REPLICAS = {
    "dropout": "dropout:Dropout",
    "depth": "depth:Depth",
    "channel-dropout": "channel_dropout:ChannelDropout",
    "feature-noise": "feature_noise:FeatureNoise",
    "drop-path": "drop_path:DropPath",
    "token-drop": "token_drop:TokenDrop",
    "leaky-slope": "leaky_slope:LeakySlope",
    "norm-momentum": "norm_momentum:NormMomentum",
    "norm-noise": "norm_noise:NormNoise",
    "mesh": "mesh:Mesh",
}
CONTROLS = {
    "fixed-dropout": "fixed_dropout:FixedDropout",
    "none": "none:NoReplicas",
}
"""Kinds without replicas: what the others are compared with, by the same loop."""

DEFAULT, PLAIN = "dropout", "none"
"""The kind of a recipe that names none; plain retraining."""


@cache
def kinds() -> dict[str, type[ReplicaKind]]:
    """Return each kind by its name, those with replicas first."""
    places = {name: where.split(":") for name, where in (REPLICAS | CONTROLS).items()}
    return {name: getattr(import_module(f"{__name__}.{module}"), kind) for name, (module, kind) in places.items()}


def kind_named(name: str) -> type[ReplicaKind]:
    """Return the kind of this name. Raises UsageError for any other."""
    if name not in kinds():
        near = did_you_mean(name, kinds())
        raise UsageError(f"unknown kind of replica {name!r}; there is {', '.join(kinds())}", hint=near)
    return kinds()[name]


def settings_of_others(kind: type[ReplicaKind]) -> dict[str, list[Any]]:
    """Return the settings that other kinds have and `kind` has not, each with its defaults, as plain data."""
    from pydantic_core import to_jsonable_python

    defaults: dict[str, list[Any]] = {}
    for other in kinds().values():
        for key in other.model_fields.keys() - kind.model_fields.keys():
            default = other.model_fields[key].get_default(call_default_factory=True)
            defaults.setdefault(key, []).append(to_jsonable_python(default))
    return defaults


def replicas_from(document: Mapping[str, Any]) -> ReplicaKind:
    """Return what `ReplicaKind.document` was made of. Raises MalformedError for what no kind says."""
    from spgsurgeon.checkpoint import MalformedError, fault_of  # pydantic takes its time

    kind = document.get("kind")
    if not isinstance(kind, str) or kind not in kinds():
        raise MalformedError(
            f"trp.kind is {kind!a:.60}, and there is {', '.join(kinds())}",
            hint="was it written by a newer version?",
        )
    try:
        return kinds()[kind].model_validate(document)
    except ValueError as error:  # pydantic's, which isn't imported for its name
        raise MalformedError(f"these are no settings of {kind} replicas: trp.{fault_of(error, document)}") from error
