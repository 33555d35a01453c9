"""Listing, showing, copying and checking recipes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.recipe import Recipe, dump_recipe, find_recipe, find_shipped, read_recipe, shipped_recipes


@dataclass(frozen=True)
class RecipeSummary:
    """A shipped recipe: `title` is the first line of its head, `head` the comments at its top without the marks."""

    name: str
    title: str
    path: Path
    head: str


def list_recipes() -> list[RecipeSummary]:
    """Return the shipped recipes, by name."""
    return [_summary(name, path) for name, path in shipped_recipes().items()]


def show_recipe(source: str | Path, overrides: Sequence[str] = ()) -> str:
    """Return a recipe with overrides applied and every default written out, under its head comment."""
    recipe = read_recipe(source, overrides)
    head = _head_lines(find_recipe(source))
    return "".join(f"{line}\n" for line in head) + dump_recipe(recipe)


def check_recipe(path: str | Path) -> Recipe:
    """Return the recipe if it validates; a `RecipeError` lists every fault at once."""
    return read_recipe(path)


def copy_recipe(name: str, destination: str | Path, force: bool = False) -> Path:
    """Copy a shipped recipe to a file, or into a folder under its own name, and return where it went.

    Refuses an existing file without `force`. The file appears whole or not at all.
    """
    source = find_shipped(name)
    target = Path(destination)
    if target.is_dir():
        target = target / source.name
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="choose another name, or replace it with --force")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder", hint="make it first, or name another")
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(source.read_bytes())
        os.replace(temporary, target)
    except OSError as error:
        raise SurgeonError(f"{target} was not written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _summary(name: str, path: Path) -> RecipeSummary:
    head = [line.removeprefix("#").removeprefix(" ") for line in _head_lines(path)]
    return RecipeSummary(name, head[0] if head else name, path, "\n".join(head))


def _head_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    return list(takewhile(lambda line: line.startswith("#"), lines))
