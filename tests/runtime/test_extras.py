"""The base install does all but what is said to be an extra; a command that lacks one says which."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from command_line import DIGITS, TINY, spgsurgeon, succeed
from packaging.requirements import Requirement

from spgsurgeon.commands.compare import compare
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.runtime import installation
from spgsurgeon.runtime.installation import EXTRAS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOR_TESTS = ("scipy", "sklearn")


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the packages of extras is found."""
    hidden = {installation._PACKAGES[name][0] for found in EXTRAS.values() for name in found}
    monkeypatch.setattr(installation, "find_spec", lambda name: None if name in hidden else find_spec(name))


def test_extras_are_those_that_are_declared() -> None:
    declared = {
        extra: tuple(Requirement(text).name for text in texts)
        for extra, texts in PROJECT["optional-dependencies"].items()
        if extra in EXTRAS
    }
    assert declared == EXTRAS
    (everything,) = PROJECT["optional-dependencies"]["all"]
    others = PROJECT["optional-dependencies"].keys() - {"all", "dev", "producers"}
    assert Requirement(everything).extras == others
    required = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert required.isdisjoint({name for found in EXTRAS.values() for name in found})


@pytest.fixture(scope="module")
def grafted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("extras") / "grafted"
    graft_folder("timm/test_resnet", path, num_classes=10, random_seed=0)
    return path


@pytest.mark.parametrize("verb", ["strip", "report"])
def test_what_needs_an_extra_says_which_before_any_work(verb: str, bare: None, grafted: Path, tmp_path: Path) -> None:
    words = {"strip": (grafted, "--export", "onnx"), "report": (grafted,)}[verb]
    outcome = spgsurgeon(verb, *words, "-o", tmp_path / "out", "--json")
    assert outcome.code == 2
    assert outcome.document["error"]["code"] == "missing-package"
    extra = {"strip": "onnx", "report": "report"}[verb]
    assert outcome.document["error"]["hint"] == f"pip install 'spgsurgeon[{extra}]'"
    assert not (tmp_path / "out").exists()


def test_training_goes_on_without_events_and_says_so(bare: None, tmp_path: Path) -> None:
    document = succeed("train", *TINY, *DIGITS, "data.limit=10", "-o", tmp_path / "run", "--json").document
    assert any("spgsurgeon[tensorboard]" in note for note in document["notes"])
    assert not (tmp_path / "run" / "tensorboard").exists()
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == 1


def test_the_doctor_takes_a_missing_extra_for_no_fault(bare: None) -> None:
    checks = {check.name: check for check in installation.import_checks()}
    assert checks["import onnx"].status == "ok"
    assert checks["import onnx"].hint == "pip install 'spgsurgeon[onnx]'"


@pytest.mark.slow
def test_a_comparison_goes_on_without_figures_and_says_so(bare: None, grafted: Path, tmp_path: Path) -> None:
    said: list[str] = []
    overrides = ["training.epochs=1", "training.device=cpu", "data.workers=0", "data.limit=10"]
    output = tmp_path / "comparison"
    succeed("strip", grafted, "-o", tmp_path / "base")
    base = str(tmp_path / "base")
    compare(
        base,
        recipe="digits-dropout",
        overrides=overrides,
        seeds=2,
        learning_rates=[1.0],
        jobs=1,
        output=output,
        say=said.append,
    )
    assert (output / "compare.md").is_file()
    assert not (output / "figures").exists()
    assert any("spgsurgeon[report]" in text for text in said)


BLOCKED = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name in BLOCKED else real(name, package)
from spgsurgeon.cli.app import run
for words in COMMANDS:
    code = run(words)
    assert code == 0, (words, code)
"""


@pytest.mark.slow
def test_the_main_path_needs_no_extra(tmp_path: Path) -> None:
    """With every package blocked that only extras and tests have, by one process as a stranger's."""
    hidden = {installation._PACKAGES[name][0] for found in EXTRAS.values() for name in found} - {"jinja2"}  # torch's
    run, base, better = (str(tmp_path / name) for name in ("run", "base", "better"))
    commands: list[list[str]] = [
        ["train", *TINY, *DIGITS, "trp.kind=none", "data.limit=10", "-o", base, "-q"],
        ["inspect", base, "-q"],
        ["train", base, *DIGITS, "data.limit=10", "-o", run, "-q"],
        ["strip", run, "-o", better, "--export", "safetensors", "--export", "pt", "--export", "pt2", "-q"],
        ["eval", better, "--data", "digits", "--workers", "0", "-q"],
        ["diff", base, f"{better}/model.safetensors", "-q"],
    ]
    names: Any = {*hidden, *FOR_TESTS}
    code = f"BLOCKED = {names!r}\nCOMMANDS = {json.loads(json.dumps(commands))!r}\n{BLOCKED}"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
