"""A data source takes one file, and everything that lists sources lists what is registered."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import TINY, spgsurgeon, succeed
from made_up_source import SHADES

import spgsurgeon as package
from spgsurgeon.data.sources.forms import SOURCES, described, form_of, listed, spelled
from spgsurgeon.errors import RecipeError, UsageError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import recipe_keys

PACKAGE = Path(package.__file__).parent
NAMES = {name for name in SOURCES if name not in ("folder", "masks")}  # which are words of much else too


@pytest.fixture
def _shades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOURCES, SHADES.name, SHADES)


@pytest.mark.usefixtures("_shades")
def test_a_made_up_source_is_trained_on_and_scored(tmp_path: Path) -> None:
    model = ("--random-weights", "--recipe", "digits-dropout", "data.source=shades", "data.image_size=32")
    small = ("training.epochs=1", "training.batch_size=8", "data.workers=0", "training.device=cpu")
    run = succeed("train", TINY[0], *model, *small, "-o", tmp_path / "run", "--json").document
    assert run["best"]["samples"] == 16
    scored = succeed("eval", tmp_path / "run", "--data", "shades", "--json").document
    assert scored["samples"] == 16
    assert scored["data"] == "shades (val)"


@pytest.mark.usefixtures("_shades")
def test_a_made_up_source_is_listed() -> None:
    with pytest.raises(UsageError) as caught:
        form_of("shadow")
    assert "shades" in str(caught.value.hint)
    with pytest.raises(RecipeError, match="shades"):
        read_recipe("digits-dropout", ["data.source=nothing"])


def test_the_recipes_help_lists_every_form() -> None:
    for form in SOURCES.values():
        assert form.spelled in recipe_keys()["data.source"]
        assert form.spelled in spgsurgeon("eval", "--help").out


@pytest.mark.parametrize("form", SOURCES.values(), ids=lambda form: form.name)
def test_a_form_is_found_by_how_it_is_spelled(form) -> None:
    assert form_of(form.spelled) is form
    assert form in listed(form.samples)
    assert form.spelled in spelled()
    assert form.reads in described([form])


def named_in(path: Path) -> Iterator[str]:
    """Yield the strings of a file that are the name of a source; docstrings are none."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    said = {node.value for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node not in said and node.value in NAMES:
            yield f"{path.relative_to(PACKAGE)}:{node.lineno}: {node.value!r}"


def test_no_source_is_named_outside_its_room() -> None:
    rooms = (PACKAGE / "data" / "sources", PACKAGE / "tasks", PACKAGE / "commands" / "demo.py")
    rooms += (PACKAGE / "data" / "checking" / "facts.py",)  # counts the words of texts
    files = [path for path in PACKAGE.rglob("*.py") if not any(path.is_relative_to(room) for room in rooms)]
    assert [found for path in files for found in named_in(path)] == []
    assert any(named_in(path) for path in rooms[0].rglob("*.py"))
