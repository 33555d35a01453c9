"""What the installed libraries have, told from the text of their modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import spgsurgeon

from spgsurgeon.models.libraries.registry import LIBRARIES, library
from spgsurgeon.models.recognition import catalogue as catalogues
from spgsurgeon.models.recognition.catalogue import catalogue
from spgsurgeon.models.recognition.installed import installed_names, new_names


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_names_are_those_that_the_library_gives_itself(name: str) -> None:
    assert list(installed_names(name)) == library(name).architectures()


def test_a_library_of_the_catalogues_version_has_nothing_new(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogues, "installed_version", lambda name: catalogue().versions[name])
    monkeypatch.setattr("spgsurgeon.models.recognition.installed.installed_version", catalogues.installed_version)
    assert new_names(catalogue()) == []


@pytest.fixture
def unknown(tmp_path: Path) -> Path:
    torch.save({f"layer{n}.weight": torch.ones(3, 5) for n in range(30)}, tmp_path / "unknown.pth")
    return tmp_path / "unknown.pth"


def test_weights_that_fit_nothing_import_nothing_with_other_versions_either(unknown: Path) -> None:
    program = """
import sys
from spgsurgeon.models.recognition import catalogue, identification, installed
installed.installed_version = lambda name: "0"
known = catalogue.catalogue()
row = known.column("architecture").index("test_resnet")
known._columns = {field: (pool, places[:row] + places[row + 1:]) for field, (pool, places) in known._columns.items()}
from spgsurgeon.cli.app import run
code = run(["inspect", sys.argv[1], "--json"])
assert not {"torch", "timm", "torchvision"} & set(sys.modules), "a library was imported"
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program, str(unknown)], capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert "timm/test_resnet" in json.loads(done.stdout)["error"]["message"]


def test_what_is_not_new_is_not_named(unknown: Path) -> None:
    assert "not compared" not in spgsurgeon("inspect", unknown).err
