"""What the package says of itself, and that what is built from it is whole."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]


def test_the_source_distribution_holds_every_file_of_the_repository() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("this is not a repository")
    included = {*PYPROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"], "pyproject.toml"}
    assert {Path(name).parts[0] for name in listed.stdout.splitlines()} <= included


def test_the_interpreters_that_are_promised_are_those_that_are_tried() -> None:
    tried = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    prefix = "Programming Language :: Python :: 3."
    promised = [text.rpartition(" ")[2] for text in PROJECT["classifiers"] if text.startswith(prefix)]
    assert promised == tried["checks"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={promised[0]}"
    assert tried["floors"]["steps"][-1]["env"]["FLOORS"]


def test_the_checks_install_all_that_they_try() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    extras = PROJECT["optional-dependencies"]
    installed = [set(found.split(",")) for found in re.findall(r"--editable '\.\[([\w,]+)\]'", script)]
    assert len(installed) == 2
    assert all(found <= extras.keys() for found in installed)
    assert {"dev", "all", "producers"} in installed


def test_who_wrote_it_and_where_it_is_from() -> None:
    assert PROJECT["authors"]
    assert all(url.startswith("https://") for url in PROJECT["urls"].values())
    assert "authors" in (ROOT / ".github" / "CITATION.cff").read_text()
