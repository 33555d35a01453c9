"""Reading a recipe: file and overrides to a validated `Recipe`, or one error that lists every fault."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from spgsurgeon.errors import RecipeError, UsageError, closest
from spgsurgeon.recipe.document import Document, KeyPath, apply_override, parse_document
from spgsurgeon.recipe.schema import Recipe, accepts, recipe_keys, section_at
from spgsurgeon.recipe.shipped import find_recipe
from spgsurgeon.recipe.syntax import LONGEST

# What a value has to be, by pydantic's type of error; the braces are filled from the error's own context.
_ALLOWED = {
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "literal_error": "{expected}",
    "greater_than": "greater than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "finite_number": "a finite number",
    "string_too_short": "not empty",
}


def read_recipe(source: str | Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Return the recipe in a YAML file (or of a shipped name) with `section.key=value` overrides laid over it.

    Without a source the overrides are all it says.

    Refuses unknown and duplicate keys and values out of range: one `RecipeError` lists every fault with its line or
    override. A file that is not there is a `UsageError`.
    """
    document = Document("the recipe")
    if source is not None:
        path = find_recipe(source)
        document = parse_document(_text(path), str(path))
    for override in overrides:
        apply_override(document, override)
    # After a syntax error there are no values, and what is missing from them would be noise.
    if document.values or not document.faults:
        try:
            recipe = Recipe.model_validate(document.values)
        except ValidationError as error:
            for details in error.errors():
                document.add_fault(*_fault(details))
    if document.faults:
        raise _recipe_error(document)
    return recipe


def _text(path: Path) -> str:
    try:
        with path.open(encoding="utf-8-sig") as file:
            return file.read(LONGEST + 1)
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not UTF-8 text, so not a recipe", hint="name a YAML file") from error
    except OSError as error:
        raise UsageError(
            f"{path} can't be read: {error.strerror}", hint="check the path and its permissions"
        ) from error


def _recipe_error(document: Document) -> RecipeError:
    in_order = sorted(document.faults, key=lambda fault: fault[0].order)
    lines = [f"{place.name}: {what}" for place, what in in_order]
    hint = "`spgsurgeon recipes show NAME` prints a shipped recipe with every key"
    return RecipeError("\n".join(lines), hint=hint, faults=lines)


def _fault(details: ErrorDetails) -> tuple[KeyPath, str]:
    """Return where one pydantic error belongs and what it says in a recipe's words."""
    path, kind, context, value = details["loc"], details["type"], details.get("ctx", {}), details["input"]
    path = tuple(key for key in path if key != "[key]")  # pydantic's mark of a mapping's key
    if kind == "extra_forbidden":
        return path, _unknown_key(path)
    if kind == "missing":
        return path, f"missing; it says: {recipe_keys().get('.'.join(map(str, path)), 'what is needed')}"
    if kind == "model_type":
        section = section_at(path)
        return (
            path,
            f"{_spelled(value)} is not a section with keys {', '.join(section.model_fields if section else ())}",
        )
    if kind == "conflict":
        return (*path, context["key"]), context["reason"]
    if kind == "value_error":
        return path, str(context["error"])
    if kind in _ALLOWED:
        return path, f"{_spelled(value)} is refused, it must be {_ALLOWED[kind].format(**context)}{_or_null(path)}"
    return path, f"{_spelled(value)} is refused: {details['msg']}"


def _unknown_key(path: KeyPath) -> str:
    """Name the sections that do have such a key, else the nearest key of the same section."""
    section = section_at(path[:-1])
    elsewhere = [key for key in recipe_keys() if key.rpartition(".")[2] == path[-1]]
    near = elsewhere or closest(str(path[-1]), section.model_fields if section else (), count=1)
    return f"unknown key, did you mean {' or '.join(map(repr, near))}?" if near else "unknown key"


def _or_null(path: KeyPath) -> str:
    return " (or null)" if accepts(path, type(None)) else ""


def _spelled(value: Any) -> str:
    """Return a value as YAML would spell it, shortened."""
    text = repr(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
