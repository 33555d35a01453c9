"""Runs of the command line in a folder that holds `model`, `data` and `recipe.yaml`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import yaml
from command_line import Outcome, succeed

from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.loading.soundness import state_of

RECIPE = "recipe.yaml"


def write_recipe(work: Path, source: str, *, split: str = "dev", **training: Any) -> None:
    """Write a recipe of two short epochs with two replicas, scored on a split."""
    fast = {"epochs": 2, "batch_size": 16, "optimizer": {"name": "adamw", "lr": 0.01}, "schedule": {"name": "linear"}}
    recipe = {
        "trp": {"rate": 0.1, "replicas": 2},
        "objective": {"weights": [0.4, 0.2]},
        "data": {"source": source, "path": str(work / "data"), "eval": split, "workers": 0},
        "training": fast | training,
    }
    (work / RECIPE).write_text(yaml.safe_dump(recipe))


def trained(work: Path, output: str, *overrides: str, model: str = "model") -> Outcome:
    """Train by the recipe, which has to work."""
    return succeed("train", "--json", work / model, "--recipe", work / RECIPE, "-o", work / output, *overrides)


def hash_of(folder: Path) -> str:
    """Return the content hash of the model in a folder."""
    return content_hash(state_of(open_model(ModelRequest(str(folder))).module))


def check_resuming(work: Path) -> None:
    """Check that a run which was killed after its second step comes to the weights of one that was not."""
    trained(work, "whole")
    trained(work, "parts", "training.checkpoints={steps: 1, keep: 9}")
    checkpoints = {
        json.loads((path / "state.json").read_text())["counters"]["step"]: path
        for path in (work / "parts" / "checkpoints").iterdir()
    }
    for step, path in checkpoints.items():
        if step > 2:
            shutil.rmtree(path)
    resumed = succeed("train", "--json", "--resume", "-o", work / "parts").document
    assert min(checkpoints) <= 2 < max(checkpoints) == resumed["steps"]
    assert hash_of(work / "parts" / "last") == hash_of(work / "whole" / "last")
