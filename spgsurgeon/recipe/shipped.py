"""The recipes that come with the package, and the way from what a user wrote to a file."""

from __future__ import annotations

import os
from pathlib import Path

from spgsurgeon.errors import UsageError, did_you_mean

_SUFFIXES = (".yaml", ".yml")


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name: from inside an installed package, or from the source checkout."""
    package = Path(__file__).resolve().parent.parent
    for folder in (package / "recipes", package.parent / "recipes"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def find_shipped(name: str) -> Path:
    """Return the shipped recipe of this name (with or without `.yaml`); refuses any other, naming near ones."""
    shipped = shipped_recipes()
    stem = name.removesuffix(".yaml")
    if stem not in shipped and (Path(name).suffix in _SUFFIXES or len(Path(name).parts) > 1):
        beside = [str(path) for path in Path(name).parent.glob("*") if path.suffix in _SUFFIXES]
        raise UsageError(f"there is no recipe file {name}", hint=did_you_mean(name, [*beside, *shipped]))
    if stem not in shipped:
        listed = f"shipped recipes: {', '.join(shipped) or 'none found'}"
        raise UsageError(f"no recipe {name!r}", hint=did_you_mean(Path(stem).name, shipped) or listed)
    return shipped[stem]


def find_recipe(source: str | Path) -> Path:
    """Return the file that `source` means: a path, else a shipped recipe's name."""
    path = Path(source)
    if os.path.isdir(path):  # False for a name too long, too, where Path.is_dir raises
        raise UsageError(f"{path} is a folder, not a recipe", hint="name a .yaml file or a shipped recipe")
    return path if os.path.exists(path) else find_shipped(str(source))
