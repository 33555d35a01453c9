"""Weights beside the chosen ones: a moving average under a name that no table knows is named, never passed over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

State = dict[str, Tensor]


def state(seed: int) -> State:
    torch.manual_seed(seed)
    return timm.create_model("test_resnet", num_classes=5).state_dict()


def saved(document: Any, path: Path) -> Path:
    torch.save(document, path)
    return path


def parameters_of(weights: State) -> State:
    return {key: value for key, value in weights.items() if "running" not in key and "num_batches" not in key}


RAW, AVERAGE = state(0), state(1)
WRAPPED = {f"module.{key}": value for key, value in AVERAGE.items()} | {"n_averaged": torch.tensor(3)}
DOCUMENTS = {
    "ema": {"model": RAW, "ema": AVERAGE},
    "ema_state_dict": {"state_dict": RAW, "ema_state_dict": AVERAGE},
    "model_ema_state_dict": {"model": RAW, "model_ema_state_dict": AVERAGE},
    "swa_model": {"state_dict": RAW, "swa_model": WRAPPED},
    "ema.module": {"model": RAW, "ema": {"module": AVERAGE, "updates": 9}},
    "callbacks.EMA.ema_weights": {"state_dict": RAW, "callbacks": {"EMA": {"ema_weights": AVERAGE}}},
    "shadow": {"model": RAW, "shadow": parameters_of(AVERAGE)},
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_other_set_with_the_models_keys_is_named(name: str, tmp_path: Path) -> None:
    path = saved(
        DOCUMENTS[name] | {"optimizer": {"state": {0: {"step": 3, "exp_avg": torch.ones(2)}}}}, tmp_path / "m.pth"
    )
    outline = read_outline(path)
    assert (outline.sets_beside, outline.lists_beside) == ((name,), ())
    assert read_outline(path, name).entries.keys() <= AVERAGE.keys()
    notes = inspect(path)["notes"]
    assert any(f"--weights {name} " in note for note in notes), notes
    assert open_model(ModelRequest(str(path))).notes == notes


@pytest.mark.parametrize("name", [name for name in DOCUMENTS if name != "shadow"])
def test_the_named_set_is_opened_when_asked_for(name: str, tmp_path: Path) -> None:
    opened = open_model(ModelRequest(str(saved(DOCUMENTS[name], tmp_path / "m.pth")), weights=name))
    assert all(torch.equal(value, AVERAGE[key]) for key, value in opened.module.state_dict().items())
    assert opened.notes == []


def test_an_average_without_keys_is_said(tmp_path: Path) -> None:
    average = {"decay": 0.99, "num_updates": 9, "shadow_params": list(AVERAGE.values())[:5], "collected_params": None}
    path = saved({"state_dict": RAW, "ema": average}, tmp_path / "m.pth")
    assert read_outline(path).lists_beside == ("ema.shadow_params",)
    assert any("ema.shadow_params" in note for note in inspect(path)["notes"])


def test_what_is_not_the_model_is_not_named(tmp_path: Path) -> None:
    other = {"centre.weight": torch.ones(3)}
    document = {"model": RAW, "best": RAW, "loss": other, "history": [torch.tensor(1.0), torch.tensor(2.0)]}
    outline = read_outline(saved(document, tmp_path / "m.pth"))
    assert outline.sets_beside == ()
    assert inspect(tmp_path / "m.pth")["notes"] == []
    known = saved({"state_dict": RAW, "state_dict_ema": AVERAGE}, tmp_path / "known.pth")
    assert inspect(known)["notes"] == ["moving-average weights (--weights raw takes the others)"]
