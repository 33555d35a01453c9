"""`demo`: the whole job, small, and what stands in its way."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import spgsurgeon, succeed
from old_files import expected

from spgsurgeon.checkpoint.folders import read_manifest
from spgsurgeon.checkpoint.ownership import RECORD
from spgsurgeon.commands import demo as demo_workflow
from spgsurgeon.commands.compare import compare
from spgsurgeon.commands.demo import demo
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.runtime.signals import InterruptedRunError


def compare_little(*arguments: Any, **given: Any) -> Any:
    return compare(*arguments, **given | {"learning_rates": [1.0], "jobs": 1})


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """A demo of one seed, one learning rate and one epoch, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo_workflow, "compare", compare_little)
        patch.setattr(demo_workflow, "SEEDS", 1)
        for name in ("BASE", "RETRAINING"):
            little = (*getattr(demo_workflow, name), "training.epochs=1", "data.limit=8")
            patch.setattr(demo_workflow, name, little)
        yield


@pytest.fixture(scope="module")
def done(small: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A demo's folder; what it printed is in `stdout.json`."""
    root = tmp_path_factory.mktemp("demo")
    (root / "stdout.json").write_text(succeed("demo", "-o", root / "d", "--json").out)
    return root


@pytest.mark.slow
def test_the_demo_compares_strips_and_exports(done: Path) -> None:
    document = json.loads((done / "stdout.json").read_text())
    assert json.loads((done / "d" / "demo.json").read_text()) == document
    assert set(expected()["json keys"]["demo"]) <= set(document)
    arms = document["comparison"]["arms"]
    (row,) = document["seeds"]
    assert row == {"seed": 0, "base": document["comparison"]["original"]} | {
        name: arms[name]["scores"][0] for name in ("plain", "spg")
    }
    assert document["mean"] == {key: row[key] for key in ("base", "plain", "spg")}
    assert [Path(path).is_file() for path in document["outputs"]] == [True, True]
    assert set(document["proof"].values()) == {True}
    runs = done / "d" / "comparison" / "runs"
    base = read_recipe(done / "d" / "base" / "recipe.yaml").data
    for name in ("plain", "spg"):
        run = runs / name / "lr-1" / "seed-0"
        data = read_recipe(run / "recipe.yaml").data
        assert (data.holdout, data.eval, data.limit) == (base.holdout, base.eval, base.limit)
    assert read_manifest(runs / "spg" / "lr-1" / "seed-0" / "best").trp["kind"] == "dropout"


@pytest.mark.slow
def test_the_command_that_it_names_goes_on_with_its_comparison(done: Path) -> None:
    document = json.loads((done / "stdout.json").read_text())
    command = shlex.split(document["command"])
    again = succeed(*command[1:], "--learning-rates", "1", "--jobs", 1, "--resume", "--json")
    assert again.document == document["comparison"]


def test_a_demo_that_was_stopped_can_be_started_again(small: None, tmp_path: Path) -> None:
    def stop(text: str) -> None:
        if text.startswith("check that"):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRunError) as stopped:
        demo(tmp_path / "d", say=stop)
    assert stopped.value.hint == "the same command with --force starts it again"
    refused = spgsurgeon("demo", "-o", tmp_path / "d")
    assert (refused.code, "--force" in refused.err) == (2, True)

    def begun(text: str) -> None:
        raise EOFError(text)

    with pytest.raises(EOFError, match="train a small base"):
        demo(tmp_path / "d", force=True, say=begun)
    assert {path.name for path in (tmp_path / "d").iterdir()} == {"demo.json", RECORD}
