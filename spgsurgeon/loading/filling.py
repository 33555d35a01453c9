"""From located weights to the module that holds them: by keys, by a library's converter, or by order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from spgsurgeon.checkpoint import CONFIG, load_tensors
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.loading.identifying import identify, inferred_size
from spgsurgeon.loading.locating import Located
from spgsurgeon.loading.recognising import Recognition
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.models import (
    Identity,
    build_for_loading,
    by_filter,
    by_order,
    fit_identity,
    keys_without_order,
    load_weights,
)

BY_ORDER = "by-order"


@dataclass(frozen=True)
class FilledModel:
    """A module with the weights of a file, and what was chosen on the way."""

    module: nn.Module
    identity: Identity
    notes: list[str]


def filled_model(located: Located, recognition: Recognition, request: ModelRequest) -> FilledModel:
    """Return the module that the weights are of.

    If the keys are not those of the architecture that somebody named, the library's own converters of others' weights
    are tried and, if `map_keys` asks for it, the order of the tensors. Raises ArchitectureError if nothing fits, and
    UsageError for a `map_keys` that there is no use for.
    """
    if request.map_keys not in (None, BY_ORDER):
        raise UsageError(f"--map-keys is {BY_ORDER} (got {request.map_keys!r})", hint="leave it out")
    identity = identify(located, recognition, request.image_size)
    tensors = load_tensors(recognition.entries)
    try:
        filled = _by_own_keys(identity, recognition, tensors)
    except ArchitectureError as error:
        return _under_other_keys(located, identity, recognition, tensors, request, error)
    if request.map_keys is not None:
        raise keys_are_known(located.source)
    return filled


def _by_own_keys(identity: Identity, recognition: Recognition, tensors: Mapping[str, Tensor]) -> FilledModel:
    inferred: list[str] = []
    if recognition.by != CONFIG:
        fitted = fit_identity(identity, tensors, recognition.match.classes if recognition.match else None)
        identity, inferred = fitted, inferred_size(identity, fitted)
    module = build_for_loading(identity, tensors)
    return FilledModel(module, identity, [*inferred, *load_weights(module, tensors, identity.name)])


def _under_other_keys(
    located: Located,
    identity: Identity,
    recognition: Recognition,
    tensors: Mapping[str, Tensor],
    request: ModelRequest,
    error: ArchitectureError,
) -> FilledModel:
    """Return the module with weights whose keys are not its own. Raises `error`, what that led to, if nothing fits."""
    if recognition.fits.matches:
        raise error
    found = by_filter(identity, tensors)
    if found is None and request.map_keys == BY_ORDER:
        if located.outline.format == "safetensors":  # which sorts them
            raise keys_without_order(identity.name)
        found = by_order(identity, tensors)
    if found is None:
        hint = f"{error.hint or ''}; --map-keys {BY_ORDER} takes the same tensors in the same order under other names"
        error.hint = hint.removeprefix("; ")
        raise error
    module = build_for_loading(found.identity, found.tensors)
    return FilledModel(
        module, found.identity, [*found.notes, *load_weights(module, found.tensors, found.identity.name)]
    )


def keys_are_known(source: str) -> UsageError:
    """Return the refusal of a mapping of keys that are the model's own."""
    return UsageError(
        f"the keys of {source} are those of the model, so there is nothing to map",
        hint="leave --map-keys out",
        code="keys-known",
    )
