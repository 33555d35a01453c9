"""Whether data and model have the same classes, and who says which the data has."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from timm.utils.misc import natural_key

from spgsurgeon.data.sources.class_names import CLASS_NAMES
from spgsurgeon.data.sources.forms import form_of
from spgsurgeon.data.sources.source import ImageSource, Source, listing
from spgsurgeon.data.subsets import LabelledSubset
from spgsurgeon.errors import UsageError


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


@dataclass(frozen=True, eq=False)
class Relabelled:
    """Labelled images whose labels are those of a model: `numbers` has the model's for each label of `whole`.

    Classes that the model lacks have -1, and no sample.
    """

    whole: ImageSource
    classes: tuple[str, ...]
    numbers: NDArray[np.int64]

    @property
    def name(self) -> str:
        """The data set's."""
        return self.whole.name

    @property
    def notes(self) -> tuple[str, ...]:
        """The data set's."""
        return self.whole.notes

    def __len__(self) -> int:
        return len(self.whole)

    def read(self, index: int) -> tuple[Image.Image, int]:
        """See `Source`."""
        image, label = self.whole.read(index)
        return image, int(self.numbers[label])

    def labels(self) -> NDArray[np.int64]:
        """See `ImageSource`."""
        return self.numbers[self.whole.labels()]

    def describe(self, index: int) -> str:
        """See `Source`."""
        return self.whole.describe(index)

    def file_paths(self) -> Iterable[str | Path]:
        """See `Source`."""
        return self.whole.file_paths()

    def marks(self) -> Iterable[str]:
        """See `Source`."""
        return [*self.whole.marks(), str(self.numbers.tolist())]

    def fingerprint(self) -> Iterable[str]:
        """See `ImageSource`."""
        return [*self.whole.fingerprint(), str(self.numbers.tolist())]


def in_timms_order(names: Sequence[str]) -> list[str]:
    """Return class folders as timm numbers them: naturally ("2" before "10") and without case."""
    return sorted(names, key=natural_key)


def with_labels_of(
    source: ImageSource, names: Sequence[str] | None, model: str, *, common: bool = False
) -> tuple[ImageSource, list[str]]:
    """Return labelled images with the labels of a model that calls its classes `names`, and what is to be said of it.

    Classes go by name if both have the same, in whatever order; by number if the model has no names (None), or they
    have no name in common. `common` leaves out the images of classes that the model lacks. Raises UsageError for
    names of which some are the same, unless `common` is given, and if `common` finds none.
    """
    own = source.classes
    if names is None or tuple(names) == own:
        return source, [] if names is not None else [f"classes go by number, as {model} has no names for them"]
    if set(names) != set(own) and list(own) == [str(number) for number in range(len(own))] and not common:
        return source, [f"classes go by number, as {source.name} has no names for them"]
    shared = set(names) & set(own)
    if not shared and not common:
        return source, [
            f"classes go by number: the model's ({listing(names, 3)}) and the data's ({listing(own, 3)}) differ"
        ]
    if shared != set(names) | set(own) and not common:
        raise _partly_the_same(source, names, model)
    if not shared:
        raise UsageError(f"{source.name} and {model} have no class in common", hint="leave --common-classes out")
    numbers = np.array([names.index(name) if name in shared else -1 for name in own])
    kept = np.flatnonzero(numbers[source.labels()] >= 0) if len(shared) < len(own) else None
    part = source if kept is None else LabelledSubset(source, kept, " of the model's classes")
    remark = f"classes go by name: {len(shared)} are in the model ({len(names)}) and in the data ({len(own)})"
    if len(shared) == len(names) == len(own):
        remark = "classes go by name: the data has them in another order than the model"
    return Relabelled(cast(ImageSource, part), tuple(names), numbers), [remark]


def differing_names(names: Sequence[str] | None, own: Sequence[str]) -> list[str]:
    """Return the note on a model that is trained on with classes of other names, or in another order."""
    if names is None or list(names) == list(own):
        return []
    what = "in another order" if set(names) == set(own) else f"called otherwise ({listing(names, 3)})"
    return [f"the model's classes were {what}: its head goes on by number, with the names of the data"]


def _partly_the_same(source: Source[Any], names: Sequence[str], model: str) -> UsageError:
    missing = [name for name in names if name not in source.classes]
    extra = [name for name in source.classes if name not in names]
    found = [
        f"only in {where}: {listing(listed)}" for where, listed in ((model, missing), (source.name, extra)) if listed
    ]
    return UsageError(
        f"{model} and {source.name} have some classes in common, and others not: {'; '.join(found)}",
        hint="--common-classes scores those in common; else give data with the model's classes",
        code="other-classes",
        only_in_model=missing,
        only_in_data=extra,
    )
