"""Listing, showing, copying, comparing and checking recipes."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.recipe import (
    SCHEMA_TITLE,
    Recipe,
    differing,
    dump_recipe,
    explain_recipe,
    find_recipe,
    find_shipped,
    read_recipe,
    recipe_json_schema,
    shipped_recipes,
)
from spgsurgeon.runtime import as_json

SCHEMA = "recipe.schema.json"
"""What lies beside a copied recipe, for editors."""
_MODELINE = "# yaml-language-server:"


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


def columns_of(source: str | Path) -> dict[str, Any]:
    """Return what tells recipes apart at a glance: `data`, `model`, `replicas` and `size` (None: the model's own)."""
    recipe = read_recipe(source)
    data, trp = recipe.data, recipe.trp
    return {
        "data": Path(data.path).name if data.path else data.source,
        "model": recipe.model,
        "replicas": trp.kind if trp.control else f"{trp.length} {trp.kind}",
        "size": data.image_size,
    }


def show_recipe(source: str | Path, overrides: Sequence[str] = (), *, explain: bool = False) -> str:
    """Return a recipe with overrides applied and every default written out, under its head comment.

    `explain` puts each key's meaning beside it.
    """
    recipe = read_recipe(source, overrides)
    head = _head_lines(find_recipe(source))
    return "".join(f"{line}\n" for line in head) + (explain_recipe if explain else dump_recipe)(recipe)


def diff_recipes(a: str | Path, b: str | Path) -> dict[str, Any]:
    """Return which keys two recipes, with all their defaults, have otherwise: the document of `recipes diff --json`.

    A difference has no `a`, or no `b`, if the replicas there are of a kind without that key.
    """
    one, other = (read_recipe(source).model_dump(mode="json") for source in (a, b))
    found = []
    for key, values in differing(one, other).items():
        there = zip(("a", "b"), (one, other), values, strict=True)
        found.append({"key": key} | {name: value for name, values, value in there if _has(values, key)})
    return {"a": str(a), "b": str(b), "differences": found, "identical": not found}


def _has(values: Any, key: str) -> bool:
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            return False
        values = values[part]
    return True


def check_recipe(path: str | Path) -> Recipe:
    """Return the recipe if it validates; a `RecipeError` lists every fault at once."""
    return read_recipe(path)


def copy_recipe(name: str, destination: str | Path, force: bool = False) -> Path:
    """Copy a shipped recipe to a file, or into a folder under its own name, and return where it went.

    Its first line names the schema that editors check it by, which goes beside it. Refuses an existing file without
    `force`, and another's file in the schema's place. Each file appears whole or not at all.
    """
    source = find_shipped(name)
    target = Path(destination)
    if target.is_dir():
        target = target / source.name
    if target.exists() and not force:
        raise UsageError(f"{target} exists", hint="choose another name, or replace it with --force")
    if not target.parent.is_dir():
        raise UsageError(f"{target.parent} is not a folder", hint="make it first, or name another")
    schema = target.with_name(SCHEMA)
    _check_is_schema(schema)
    _write(target, f"{_MODELINE} $schema=./{SCHEMA}\n" + source.read_text(encoding="utf-8-sig"))
    _write(schema, as_json(recipe_json_schema(), indent=2) + "\n")
    return target


def _check_is_schema(path: Path) -> None:
    """Raise UsageError if something else than a schema of recipes has its name."""
    try:
        title = json.loads(path.read_bytes()).get("title")
    except FileNotFoundError:
        return
    except (OSError, ValueError, AttributeError):
        title = None
    if title != SCHEMA_TITLE:
        hint = "move it, or copy the recipe to another folder"
        raise UsageError(f"{path} is not a schema of recipes, and editors need one there", hint=hint)


def _write(target: Path, text: str) -> None:
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, target)
    except OSError as error:
        raise SurgeonError(f"{target} was not written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _summary(name: str, path: Path) -> RecipeSummary:
    head = [line.removeprefix("#").removeprefix(" ") for line in _head_lines(path)]
    return RecipeSummary(name, head[0] if head else name, path, "\n".join(head))


def _head_lines(path: Path) -> list[str]:
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    head = takewhile(lambda line: line.startswith("#"), lines)
    return [line for line in head if not line.startswith(_MODELINE)]
