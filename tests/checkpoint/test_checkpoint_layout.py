"""What a file or folder of ours is called is said once, in the layout of the room that owns it."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import spgsurgeon
from spgsurgeon.checkpoint import layout as of_checkpoints
from spgsurgeon.comparing import layout as of_comparisons
from spgsurgeon.exporting import layout as of_exports
from spgsurgeon.runs import layout as of_runs

PACKAGE = Path(spgsurgeon.__file__).parent
LAYOUTS = (of_checkpoints, of_comparisons, of_exports, of_runs)
USAGE = "exporting/card.py"  # lines of Python for whoever has the files


def names_in(layout: ModuleType) -> set[str]:
    return {value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)}


NAMES = set[str]().union(*map(names_in, LAYOUTS))
FILES = {name for name in NAMES if "." in name}
FOLDERS = NAMES - FILES
"""Words such as "best" are keys of documents too: they are names in a path only."""
NAMED = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, FILES))})(?![\w-])")


def literals(source: str) -> Iterator[tuple[int, str]]:
    """Yield the names in a program's texts, but not in its docstrings, each with its line."""
    tree = ast.parse(source)
    prose = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose:
            yield from ((node.lineno, name) for name in NAMED.findall(node.value))
        parts = [node.right] if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) else []
        if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "Path":
            parts = node.args
        for part in parts:
            if isinstance(part, ast.Constant) and part.value in FOLDERS:
                yield node.lineno, str(part.value)


OWN = {
    "checkpoint/folders.py:model.pt",  # what a command of torch is told to write
    "runtime/resources.py:checkpoints",  # of torch.hub
    "data/sources/records/tables.py:state.json",  # of Hugging Face's datasets
    "commands/demo.py:base",  # the demonstration's own folder
    "training/run.py:runs",  # where runs go if nobody says: of no comparison
}


def test_names_of_files_are_said_in_layouts_only() -> None:
    homes = {Path(str(layout.__file__)) for layout in LAYOUTS} | {PACKAGE / USAGE}
    files = [path for path in PACKAGE.rglob("*.py") if path not in homes]
    assert len(files) > 100
    named = [(path.relative_to(PACKAGE).as_posix(), *found) for path in files for found in literals(path.read_text())]
    assert [f"{path}:{line}: {name}" for path, line, name in named if f"{path}:{name}" not in OWN] == []
    assert {f"{path}:{name}" for path, _, name in named} == OWN, "an exception that is none any more"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x = folder / 'graft.json'", ["graft.json"]),
        ("x = f'{folder}/config.json is not JSON'", ["config.json"]),
        ("x = {'*/recipe.yaml': 1}", ["recipe.yaml"]),
        ("x = run / 'best'", ["best"]),
        ("x = Path('runs', arm)", ["runs"]),
        ("x = counters['best'], 'runs'", []),
        ("'''Of graft.json.'''\nx = 'my-config.json', 'model.safetensors2'", []),
    ],
)
def test_a_name_is_found_wherever_it_is_said(source: str, found: list[str]) -> None:
    assert [name for _, name in literals(source)] == found
