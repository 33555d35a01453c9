"""The house keeps its order: rooms have faces, and others come in by these."""

import ast
from collections import Counter
from pathlib import Path

import pytest

import spgsurgeon as package

PACKAGE = Path(package.__file__).parent
FACELESS = {"cli", "commands", "docs"}  # the first is the top; each verb is a module of commands; guides are text
REGISTRY = "spgsurgeon.replicas.kinds"  # which has a face of its own: kinds are named there, without torch
ROOMS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MOST_FILES = 17  # a sign that a folder wants rooms of its own


def test_each_room_says_in_one_sentence_what_it_is_for() -> None:
    for init in PACKAGE.rglob("__init__.py"):
        text = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))
        assert text, init
        assert text.partition("\n")[0].endswith((".", ":")), init


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in FACELESS])
def test_what_a_face_lists_is_there(room: str) -> None:
    module = __import__(f"spgsurgeon.{room}", fromlist=["__all__"])
    assert module.__all__
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_nobody_reaches_past_a_face() -> None:
    past = []
    for path in PACKAGE.rglob("*.py"):
        own = path.relative_to(PACKAGE).with_suffix("").parts[0]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            _, _, inside = name.partition("spgsurgeon.")
            room, _, module = inside.partition(".")
            if module and room not in {own, *FACELESS} and name != REGISTRY:
                past.append(f"{path.relative_to(PACKAGE)}:{node.lineno}: {name}")
    assert past == []


def test_no_folder_is_a_heap() -> None:
    files = Counter(path.parent for path in PACKAGE.rglob("*.py"))
    assert {folder.name: count for folder, count in files.items() if count > MOST_FILES} == {}
