"""Whether data and model have the same classes, and who says which the data has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from timm.utils.misc import natural_key

from spgsurgeon.data.renumbering import renumbered
from spgsurgeon.data.sources.class_names import CLASS_NAMES
from spgsurgeon.data.sources.forms import form_of
from spgsurgeon.data.sources.source import ImageSource, Source, listing
from spgsurgeon.data.subsets import LabelledSubset
from spgsurgeon.errors import UsageError

_SAME = {"__background__": "background"}  # as torchvision's weights and VOC call the same


def classes_said_by(form: str, root: str | Path | None, classes: Sequence[str] | int | None = None) -> str | None:
    """Return what says which classes the data has, by name: the recipe's `classes`, or a file; None: the data does."""
    if classes is not None:
        return "data.classes"
    if "classes" not in form_of(form).takes or root is None:
        return None
    file = Path(root).expanduser() / CLASS_NAMES
    return str(file) if file.is_file() else None


def check_classes(source: Source[Any], num_classes: int, model: str, hint: str, *, said_by: str | None = None) -> None:
    """Raise UsageError, with this hint, where the data has other classes than the model; see `classes_said_by`."""
    classes = len(source.classes)
    if classes == num_classes:
        return
    if said_by is None:
        raise UsageError(f"{source.name} has {classes} classes, {model} has {num_classes}", hint=hint)
    raise UsageError(
        f"{said_by} says {classes} classes, {model} has {num_classes}",
        hint=f"correct {said_by} if the data has {num_classes} classes; else {hint}",
    )


def in_timms_order(names: Sequence[str]) -> list[str]:
    """Return class folders as timm numbers them: naturally ("2" before "10") and without case."""
    return sorted(names, key=natural_key)


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes have no names, but are counted."""
    return list(names) == [str(number) for number in range(len(names))]


def with_labels_of(
    source: Source[Any], names: Sequence[str] | None, model: str, *, hint: str | None = None, common: bool = False
) -> tuple[Source[Any], list[str]]:
    """Return the data with the labels of a model that calls its classes `names`, and what is to be said of it.

    Classes go by name if both have the same, in whatever order; by number if the model has no names (None), or they
    have no name in common. `common` leaves out the images of classes that the model lacks. Raises UsageError, with
    this hint, for names of which some are the same, unless `common` is given, and if `common` finds none.
    """
    own = source.classes
    if names is None or tuple(names) == own:
        return source, [] if names is not None else [f"classes go by number, as {model} has no names for them"]
    places = {_SAME.get(name, name): number for number, name in enumerate(names)}
    numbers = [places.get(_SAME.get(name, name), -1) for name in own]
    shared = len({number for number in numbers if number >= 0})
    whole = shared == len(names) == len(own)
    if not whole and not common:
        if are_numbers(own):
            return source, [f"classes go by number, as {source.name} has no names for them"]
        if not shared:
            return source, [
                f"classes go by number: the model's ({listing(names, 3)}) and the data's ({listing(own, 3)}) differ"
            ]
        raise _partly_the_same(source, names, places, numbers, model, hint)
    if not shared:
        raise UsageError(f"{source.name} and {model} have no class in common", hint="leave --common-classes out")
    if whole and numbers == list(range(len(own))):
        return renumbered(source, names, numbers), []
    part = source
    if shared < len(own):
        images = cast(ImageSource, source)
        kept = np.flatnonzero(np.array(numbers)[images.labels()] >= 0)
        part = LabelledSubset(images, kept, " of the model's classes")
    remark = f"classes go by name: {shared} are in the model ({len(names)}) and in the data ({len(own)})"
    if whole:
        remark = "classes go by name: the data has them in another order than the model"
    return renumbered(part, names, numbers), [remark]


def _partly_the_same(
    source: Source[Any],
    names: Sequence[str],
    places: Mapping[str, int],
    numbers: Sequence[int],
    model: str,
    hint: str | None,
) -> UsageError:
    missing = [name for name in names if places[_SAME.get(name, name)] not in numbers]
    extra = [name for name, number in zip(source.classes, numbers, strict=True) if number < 0]
    found = [
        f"only in {where}: {listing(listed)}" for where, listed in ((model, missing), (source.name, extra)) if listed
    ]
    return UsageError(
        f"{model} and {source.name} have some classes in common, and others not: {'; '.join(found)}",
        hint=hint,
        code="other-classes",
        only_in_model=missing,
        only_in_data=extra,
    )
