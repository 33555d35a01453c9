"""`eval` of weights and outputs that are not numbers: named and refused, never scored as chance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import Outcome, make_image_folder, spgsurgeon

from spgsurgeon.runtime.json_text import as_json

NAN, INFINITY = float("nan"), float("inf")


def scored(folder: Path, key: str | None, value: float) -> Outcome:
    make_image_folder(folder / "data", splits=("val",))
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=2).state_dict()
    if key is None:
        state = {name: w.sign() * value if name.endswith("weight") else w for name, w in state.items()}
    else:
        state[key].view(-1)[1] = value
    torch.save(state, folder / "model.pth")
    options = ("--arch", "timm/test_resnet", "--device", "cpu", "--workers", 0, "--json")
    return spgsurgeon("eval", folder / "model.pth", "--data", folder / "data", *options)


@pytest.mark.parametrize(
    ("key", "value"),
    [("fc.weight", NAN), ("fc.bias", -INFINITY), ("bn1.running_var", -1.0), ("bn1.running_mean", NAN)],
)
def test_the_tensor_is_named(key: str, value: float, tmp_path: Path) -> None:
    outcome = scored(tmp_path, key, value)
    assert outcome.code == 1
    error = outcome.document["error"]
    assert (error["code"], error["tensors"]) == ("unsound-weights", [key])
    assert key in error["message"]


def test_sound_weights_are_scored_and_a_negative_mean_is_sound(tmp_path: Path) -> None:
    assert scored(tmp_path, "bn1.running_mean", -1.0).code == 0


def test_outputs_that_overflow_are_refused(tmp_path: Path) -> None:
    outcome = scored(tmp_path, None, 3e38)
    assert (outcome.code, outcome.document["error"]["code"]) == (1, "unsound-outputs")


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, {"a": [NAN]}, (NAN,)])
def test_json_never_holds_what_json_lacks(value: Any) -> None:
    def refused(text: str) -> None:
        raise AssertionError(text)

    text = as_json({"value": value, "nearest": 1.5})
    assert "null" in text
    assert json.loads(text, parse_constant=refused)["nearest"] == 1.5
