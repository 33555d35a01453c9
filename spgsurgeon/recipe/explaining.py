"""A recipe as YAML with what each key means beside it: still a recipe, in block style."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from spgsurgeon.recipe.schema import Recipe, listed
from spgsurgeon.sections import Section, meanings

_COLUMN, _WIDTH, _NARROWEST = 40, 110, 30  # characters


def explain_recipe(recipe: Recipe) -> str:
    """Return the whole recipe, a key a line, each with its meaning as a comment; reading it gives an equal recipe."""
    return "".join(f"{line}\n" for line in _section(recipe, recipe.model_dump(mode="json"), ()))


def _section(section: Section, values: Mapping[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    told = listed(type(section)) | meanings(type(section))
    for key, value in values.items():
        below = getattr(section, key)
        text = f"{'  ' * len(path)}{key}:" + ("" if isinstance(below, Section) else f" {_flow(value)}")
        yield from _beside(text, " ".join(told.get(key, "").split()))
        if isinstance(below, Section):
            yield from _section(below, value, (*path, key))


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    written = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=1e9, sort_keys=False)
    return str(written).removesuffix("\n").removesuffix("\n...")


def _beside(text: str, meaning: str) -> Iterator[str]:
    """Yield a line with its comment, whose further lines stand below each other."""
    column = max(_COLUMN, len(text) + 2) if len(text) + 2 + _NARROWEST <= _WIDTH else _COLUMN
    comments = [f"# {part}" for part in textwrap.wrap(meaning, _WIDTH - column - 2)]
    if len(text) + 2 > column:
        yield text
        text = ""
    for number, comment in enumerate(comments or [""]):
        yield f"{text if number == 0 else '':<{column}}{comment}".rstrip()
