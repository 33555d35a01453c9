"""Files by class: a folder for each class of a split, whose name is the class's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torchvision.datasets import DatasetFolder

from spgsurgeon.data.sources.image_listing import LeftOut, is_hidden
from spgsurgeon.data.sources.source import existing_folder, listing, nearby_folders, printable
from spgsurgeon.errors import UsageError

EVALUATION_SPLITS = ("val", "valid", "validation", "eval", "evaluation", "test")


@dataclass(frozen=True)
class FoundFolders:
    """The class folders of a split. `dataset` is torchvision's: its `samples` are (path, label)."""

    name: str
    classes: tuple[str, ...]
    dataset: Any
    notes: tuple[str, ...]


class _ClassFolders(DatasetFolder):  # type: ignore[misc]  # torchvision comes without types
    """torchvision's, but for what is hidden: no class folder, and no file, has a name that starts with a dot."""

    def __init__(self, root: Path, loader: Callable[[str], Any], endings: Sequence[str], kind: str) -> None:
        self.left_out = LeftOut(endings, root, kind)
        super().__init__(str(root), loader=loader, is_valid_file=self.left_out.takes)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the names of the class folders, sorted, and their labels."""
        names = [name for name in super().find_classes(directory)[0] if not is_hidden(name)]
        if not names:
            raise FileNotFoundError(f"Couldn't find any class folder in {directory}.")
        return names, {name: label for label, name in enumerate(names)}


def find_class_folders(
    source: str,
    path: str | Path | None,
    split: str,
    kind: str,
    endings: Sequence[str],
    loader: Callable[[str], Any],
) -> FoundFolders:
    """Return the class folders in the sub-folder `split` of `path` ("" or ".": in `path` itself).

    Files with one of the `endings` (lower case) are read, each of which holds an image, or a sound: the `kind`. Raises
    UsageError if there are none.
    """
    root = existing_folder(path, source) / split
    if not root.is_dir():
        hint = nearby_folders(root.parent, split)
        if root.parent.name in ("train", *EVALUATION_SPLITS):
            hint = f"the path is that of the folder which holds the splits: {root.parent.parent}"
        raise UsageError(f"no folder {root} for the split {split!r}", hint=hint)
    try:
        dataset = _ClassFolders(root, loader, endings, kind)
    except FileNotFoundError as error:
        hint = (
            f"expected {root}/<class>/<{kind}>, one folder per class, with {_a(kind)} in each; read are "
            f"{', '.join(endings)}"
        )
        raise UsageError(f"{printable(str(root))} is not {_a(kind)} folder: {error}", hint=hint) from error
    classes = tuple(printable(name) for name in dataset.classes)
    notes = (*dataset.left_out.notes(), *_renamed(dataset.classes, classes))
    return FoundFolders(printable(str(root)), classes, dataset, notes)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _renamed(names: Sequence[str], classes: Sequence[str]) -> list[str]:
    """Return the note on class folders whose names are not UTF-8. Raises UsageError if two come to one name."""
    if len(set(classes)) < len(classes):
        twice = sorted(name for name, count in Counter(classes).items() if count > 1)
        raise UsageError(f"several class folders come to the name {listing(twice)}", hint="rename one of them")
    odd = [shown for name, shown in zip(names, classes, strict=True) if shown != name]
    return [f"class folders whose names are not UTF-8 are called {', '.join(odd)}"] if odd else []
