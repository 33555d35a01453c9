"""`compare`'s search arm: a rate searched at the cost of one run, also where trials are stopped or break off."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, spgsurgeon

from spgsurgeon.comparing import search as searching
from spgsurgeon.comparing.base import write_base
from spgsurgeon.comparing.runs import Assignment, Run, perform
from spgsurgeon.comparing.search import Search, search
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.runs.records import EpochRecord, read_epochs
from spgsurgeon.training.soundness.number_guard import NonFiniteError

RECIPE = """
trp: {kind: fixed-dropout}
data: {source: digits, image_size: 16, limit: 4, holdout: 0.05, eval: holdout, workers: 0}
training: {epochs: 1, batch_size: 20, eval_batch_size: 250, optimizer: {lr: 0.02}, device: cpu}
"""
EPOCHS, SEED = 4, 1


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base and a recipe."""
    pytest.importorskip("optuna")
    root = tmp_path_factory.mktemp("search")
    (root / "small.yaml").write_text(RECIPE)
    write_base(root / "base", open_model(ModelRequest(TINY[0], num_classes=10, random_seed=0)))
    return root


def searched(root: Path, folder: Path, *overrides: str) -> Search:
    overrides = (f"training.seed={SEED}", *overrides)
    return search(folder, str(root / "base"), str(root / "small.yaml"), overrides, EPOCHS, SEED)


def whole_epochs(trial: Path) -> list[EpochRecord]:
    return read_epochs(trial / "metrics.jsonl")[0]


def test_a_search_spends_the_epochs_of_one_run_and_goes_on_where_it_was(root: Path, tmp_path: Path) -> None:
    found = searched(root, tmp_path / "s")
    epochs = [[epoch.evaluation for epoch in whole_epochs(trial)] for trial in found.trials]
    assert sum(map(len, epochs)) == EPOCHS
    assert len(found.trials) > 1
    assert max(map(len, epochs)) <= 2
    assert found.best is not None
    assert found.best["top1"] == max(e["top1"] for trial in epochs for e in trial if e and e["top1"] is not None)
    rates = {read_recipe(trial / "recipe.yaml").trp.rate for trial in found.trials}
    assert len(rates) == len(found.trials)
    assert searched(root, tmp_path / "s") == found, "it is finished"
    shutil.rmtree(found.trials[-1])
    again = searched(root, tmp_path / "s")
    assert (again.folder, again.trials) == (found.folder, found.trials)
    assert again.best["top1"] == found.best["top1"] if again.best else False


class Diverging:
    """A trial's progress, which meets infinity in its first step after so many epochs."""

    def __init__(self, progress: Any, epochs: int) -> None:
        self._progress, self._epochs = progress, epochs

    def __getattr__(self, name: str) -> Any:
        return getattr(self._progress, name)

    def advance(self) -> None:
        if self._progress.epochs == self._epochs:
            raise NonFiniteError(f"it diverged after {self._epochs} epochs")


@pytest.mark.parametrize("whole", [0, 1])
def test_a_trial_that_breaks_off_costs_the_epoch_it_was_in_and_is_not_chosen(
    whole: int, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = searching.train

    def train_the_first_to_infinity(*arguments: Any, **given: Any) -> Any:
        if given["output"].name == "trial-0":
            given["progress"] = Diverging(given["progress"], whole)
        return train(*arguments, **given)

    monkeypatch.setattr(searching, "train", train_the_first_to_infinity)
    found = searched(root, tmp_path / "s")
    epochs = [len(whole_epochs(trial)) for trial in found.trials]
    assert epochs[0] == whole
    assert sum(epochs) + 1 == EPOCHS
    assert found.folder in found.trials[1:]
    assert found.best is not None
    assert found.trouble is None
    if whole:
        (line,) = (tmp_path / "s" / "trial-0" / "metrics.jsonl").read_text().splitlines()
        broken = json.loads(line)["evaluation"]
        scores = [(scored["top1"], -scored["loss"]) for scored in (broken, found.best)]
        assert scores[0] > scores[1], "by its scores it would be chosen"
    assert searched(root, tmp_path / "s") == found, "it breaks off once more"


def test_a_search_of_which_every_trial_breaks_off_says_why(root: Path, tmp_path: Path) -> None:
    overrides = ("training.optimizer.lr=1e30", "training.optimizer.momentum=0")
    found = searched(root, tmp_path / "s", *overrides)
    assert (found.best, found.folder, len(found.trials)) == (None, tmp_path / "s", EPOCHS)
    assert found.trouble is not None
    assert "not finite" in found.trouble
    task = Assignment(Run("search", 1.0, SEED), tmp_path, root / "base", str(root / "small.yaml"), overrides, EPOCHS)
    result = perform(task)
    assert (result.validation, result.folder, result.steps) == (None, str(task.run.folder), 0)
    assert result.trouble is not None


def test_a_search_needs_optuna(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    asked = ("--recipe", root / "small.yaml", "data.eval=val", "trp={kind: dropout}", "--arms", "search")
    refused = spgsurgeon("compare", *TINY, *asked, "-o", tmp_path / "c")
    assert (refused.code, "spgsurgeon[search]" in refused.err) == (2, True)
