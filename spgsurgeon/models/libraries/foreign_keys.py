"""Weights under the names that their authors gave them: which of an architecture's tensors each one is.

Nothing is taken that does not fit: what is returned has exactly the keys and shapes of the architecture.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from torch import Tensor

from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.models.libraries.building import build, build_for_loading, fit_identity, load_weights
from spgsurgeon.models.libraries.identity import Identity
from spgsurgeon.models.libraries.limits import limited_to
from spgsurgeon.models.libraries.registry import library
from spgsurgeon.models.recognition.fingerprints import Shape
from spgsurgeon.models.recognition.varying_shapes import number_at, places_between

_COUNTER = "num_batches_tracked"
_KINDS = ("weight", "bias", "running_mean", "running_var")
_CLASSES = 1000, 13  # two numbers that have nothing in common, to see what follows the number of classes
_SHOWN = 5


@dataclass(frozen=True)
class OwnNames:
    """Weights under the architecture's own keys, and what is to be said of how they got them."""

    identity: Identity
    tensors: dict[str, Tensor]
    notes: list[str]


def by_filter(identity: Identity, tensors: Mapping[str, Tensor]) -> OwnNames | None:
    """Return the weights as a converter of the library makes them, the first that fits; None if none does.

    The converters see tensors by their keys and a model with random weights, and nothing else of a file.
    """
    owner = library(identity.library)
    with limited_to(tensors, identity.name):
        model = build(identity)
    if tensors.keys() <= model.state_dict().keys():
        return None  # what differs is the shapes: a converter would make them fit by guessing at them
    for convert in owner.converters(identity.architecture):
        with suppress(Exception):  # they index, reshape and look up what other files have
            found = convert(dict(tensors), model)
            fitted = fit_identity(identity, found)
            load_weights(build_for_loading(fitted, found), found, identity.name)
            return OwnNames(fitted, dict(found), _said_of_filter(owner.name, tensors, found))
    return None


def _said_of_filter(name: str, given: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> list[str]:
    """Return what a converter did, by where the numbers lie: kept under another key, left out or computed."""
    before, after = ({value.data_ptr() for value in part.values()} for part in (given, found))
    renamed = sum(given[key].data_ptr() != value.data_ptr() for key, value in found.items() if key in given)
    renamed += sum(key not in given for key in found)
    said = [f"the weights are as their authors publish them: {name}'s own checkpoint filter takes them"]
    if renamed:
        said[0] += f", and renames {renamed} tensors"
    left_out = [key for key, value in given.items() if value.data_ptr() not in after]
    computed = [
        f"{key} {list(value.shape)}" for key, value in found.items() if value.numel() and value.data_ptr() not in before
    ]
    if left_out:
        said.append(f"left out or replaced by {name}'s filter: {_few(left_out)}")
    if computed:
        said.append(f"computed by {name}'s filter, such as resampled: {_few(computed)}")
    return said


def by_order(identity: Identity, tensors: Mapping[str, Tensor]) -> OwnNames:
    """Return the weights under the keys that the architecture's tensors have in the same order.

    Raises UsageError for keys that are sorted as text, as those of safetensors files are: their order says nothing; and
    ArchitectureError, naming the first difference, unless all shapes are equal, one by one, and so are the last parts
    of keys, such as weight and bias. Counters of batch norms may be absent.
    """
    theirs = {key: value for key, value in tensors.items() if not key.endswith(_COUNTER)}
    if list(theirs) == sorted(theirs):
        raise keys_without_order(identity.name)
    fitted = _with_their_classes(identity, theirs)
    own = _shapes(fitted)
    _check_alike(own, theirs, identity.name)
    found = dict(zip(own, theirs.values(), strict=True))
    counters = [value for key, value in tensors.items() if key.endswith(_COUNTER)]
    own_counters = [key for key in build_for_loading(fitted).state_dict() if key.endswith(_COUNTER)]
    if len(counters) == len(own_counters):
        found |= dict(zip(own_counters, counters, strict=True))
    head = f", the classifier of {fitted.num_classes} classes among them" if fitted.num_classes else ""
    return OwnNames(
        fitted,
        found,
        [f"keys are mapped by order: {len(theirs)} tensors have the shapes of {identity.name}, one by one{head}"],
    )


def keys_without_order(name: str) -> UsageError:
    """Return the refusal of a file whose keys lie in another order than the modules of the model were made in."""
    return UsageError(
        f"the keys are sorted as text, so their order is not that of {name}",
        hint="--map-keys by-order takes a file in which torch.save wrote the model's own state dict",
        code="keys-without-order",
    )


def _with_their_classes(identity: Identity, theirs: Mapping[str, Tensor]) -> Identity:
    """Return the identity with as many classes as the tensor has that stands in the classifier's place."""
    shapes, other = (_shapes(replace(identity, num_classes=number)) for number in _CLASSES)
    places = places_between(shapes, other, *_CLASSES)
    if not places:
        return identity
    if len(theirs) != len(shapes):
        return replace(identity, num_classes=0)
    by_place = {key: tuple(value.shape) for key, value in zip(shapes, theirs.values(), strict=True)}
    classes = number_at(by_place, places, otherwise=None)
    return identity if classes is None else replace(identity, num_classes=classes)


def _shapes(identity: Identity) -> dict[str, Shape]:
    """Return the shapes of an architecture's tensors in their order, but for counters."""
    state = build_for_loading(identity).state_dict()
    return {key: tuple(value.shape) for key, value in state.items() if not key.endswith(_COUNTER)}


def _check_alike(own: Mapping[str, Shape], theirs: Mapping[str, Tensor], name: str) -> None:
    faults = list(_faults(own, theirs))
    if len(own) != len(theirs):
        faults.insert(0, f"they are {len(theirs)}, {name} has {len(own)}")
    if faults:
        raise ArchitectureError(
            f"the tensors are not those of {name} in the same order: {faults[0]}",
            hint="is the architecture right? --arch says which",
            code="other-order",
            faults=faults[:_SHOWN],
        )


def _faults(own: Mapping[str, Shape], theirs: Mapping[str, Tensor]) -> Iterator[str]:
    for (key, shape), (their_key, value) in zip(own.items(), theirs.items(), strict=False):
        kinds = [one.rpartition(".")[2] for one in (key, their_key)]
        if shape != tuple(value.shape):
            yield f"{their_key} is {list(value.shape)}, {key} is {list(shape)}"
        elif kinds[0] != kinds[1] and all(kind in _KINDS for kind in kinds):
            yield f"{their_key} stands in the place of {key}"


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
