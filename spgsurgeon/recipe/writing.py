"""A recipe back to YAML, every default written out."""

from __future__ import annotations

import yaml

from spgsurgeon.recipe.schema import Recipe


def dump_recipe(recipe: Recipe) -> str:
    """Return the whole recipe as YAML in schema order; reading it gives an equal recipe."""
    values = recipe.model_dump(mode="json")
    # default_flow_style None: what holds only scalars goes on one line.
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, allow_unicode=True, width=120)
