"""`spgsurgeon recipes`: list, show, copy, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spgsurgeon.cli.terminal.console import columns, emit
from spgsurgeon.cli.terminal.options import Force, with_common_options

group = typer.Typer(help="Shipped recipes: list, show, copy; and check your own.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name or a file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="training.epochs=3 and the like.")]


@group.command("ls")
@with_common_options
def list_command() -> None:
    """List the shipped recipes.

    Example: `spgsurgeon recipes ls`
    """
    from spgsurgeon.commands.recipes import list_recipes

    found = [{"name": r.name, "title": r.title, "path": str(r.path)} for r in list_recipes()]
    emit({"recipes": found}, lambda _: columns(("recipe", "what it is"), [(r["name"], r["title"]) for r in found]))


@group.command("show")
@with_common_options
def show_command(recipe: Name, overrides: Overrides = None) -> None:
    """Print a recipe with every default written out.

    Example: `spgsurgeon recipes show digits-dropout training.epochs=3`
    """
    from spgsurgeon.commands.recipes import show_recipe

    text = show_recipe(recipe, overrides or [])
    emit({"recipe": text}, lambda _: _plain(text))


@group.command("cp")
@with_common_options
def copy_command(
    recipe: Name, destination: Annotated[Path, typer.Argument(help="File or folder.")], force: Force = False
) -> None:
    """Copy a shipped recipe, to edit it.

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


def _plain(text: str) -> object:
    from rich.text import Text

    return Text(text.rstrip("\n"))
