"""`spgsurgeon recipes`: list, show, copy, check, compare, and the schema for editors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from spgsurgeon.cli.terminal.completion import recipe_names
from spgsurgeon.cli.terminal.console import emit
from spgsurgeon.cli.terminal.options import Force, with_common_options
from spgsurgeon.cli.terminal.text import columns

group = typer.Typer(help="Shipped recipes: list, show, copy; check and compare your own.", no_args_is_help=True)

Name = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a file.", autocompletion=recipe_names)
]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="training.epochs=3 and the like.")]


@group.command("ls")
@with_common_options
def list_command() -> None:
    """List the shipped recipes.

    `-` leaves the model to the command, and the size of images to the model.

    Example: `spgsurgeon recipes ls`
    """
    from spgsurgeon.commands.recipes import columns_of, list_recipes

    found = [{"name": r.name, "title": r.title, "path": str(r.path)} | columns_of(r.path) for r in list_recipes()]
    head = ("recipe", "data", "model", "replicas", "size")
    emit({"recipes": found}, lambda _: columns(head, map(_row, found), whole={*head} - {"model"}))


def _row(recipe: dict[str, Any]) -> tuple[str, ...]:
    """Return a line of the list; of a model the architecture, as its library and weights would take half the line."""
    model = (recipe["model"] or "-").rpartition("/")[2].partition(".")[0]
    return recipe["name"], recipe["data"], model, recipe["replicas"], str(recipe["size"] or "-")


@group.command("show")
@with_common_options
def show_command(
    recipe: Name,
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say beside each key what it means.")] = False,
) -> None:
    """Print a recipe with every default written out.

    Example: `spgsurgeon recipes show digits-dropout training.epochs=3`
    """
    from spgsurgeon.commands.recipes import show_recipe

    text = show_recipe(recipe, overrides or [], explain=explain)
    emit({"recipe": text}, lambda _: _plain(text))


@group.command("cp")
@with_common_options
def copy_command(
    recipe: Name, destination: Annotated[Path, typer.Argument(help="File or folder.")], force: Force = False
) -> None:
    """Copy a shipped recipe, to edit it.

    Its first line names recipe.schema.json, which goes beside it: by that, editors complete keys and check values.

    Example: `spgsurgeon recipes cp digits-dropout my-recipe.yaml`
    """
    from spgsurgeon.commands.recipes import copy_recipe

    path = copy_recipe(recipe, destination, force)
    emit({"path": str(path)}, lambda document: document["path"])


@group.command("check")
@with_common_options
def check_command(recipe: Name) -> None:
    """Validate a recipe file and report every fault at once.

    Example: `spgsurgeon recipes check my-recipe.yaml`
    """
    from spgsurgeon.commands.recipes import check_recipe

    check_recipe(recipe)
    emit({"recipe": recipe, "valid": True}, lambda _: f"{recipe} is valid")


@group.command("diff")
@with_common_options
def diff_command(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A", help="A shipped recipe's name or a file.", show_default=False, autocompletion=recipe_names
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="Another.", show_default=False, autocompletion=recipe_names)],
) -> None:
    """Say which keys two recipes set otherwise, with all their defaults.

    The exit code is 0 whether they differ or not.

    Example: `spgsurgeon recipes diff imagenet-resnet50-dropout my-recipe.yaml`
    """
    from spgsurgeon.commands.recipes import diff_recipes

    emit(diff_recipes(a, b), _render_differences)


def _render_differences(document: dict[str, Any]) -> object:
    import yaml

    def written(difference: dict[str, Any], side: str) -> str:
        if side not in difference:
            return ""
        text: str = yaml.safe_dump(difference[side], default_flow_style=True, width=1e9)
        return text.removesuffix("\n").removesuffix("\n...")

    if document["identical"]:
        return "identical: every key has the same value"
    rows = [(found["key"], written(found, "a"), written(found, "b")) for found in document["differences"]]
    return columns(("key", document["a"], document["b"]), rows)


@group.command("schema")
@with_common_options
def schema_command() -> None:
    """Print the JSON Schema of recipes, for editors.

    `recipes cp` writes it beside the copy. With --json it is the same document.

    Example: `spgsurgeon recipes schema`
    """
    from spgsurgeon.recipe import recipe_json_schema
    from spgsurgeon.runtime import as_json

    schema = recipe_json_schema()
    emit(schema, lambda _: _plain(as_json(schema, indent=2)))


def _plain(text: str) -> object:
    from rich.text import Text

    return Text(text.rstrip("\n"))
