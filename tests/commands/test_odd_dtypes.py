"""Weights that are not float32: scored as float32, which is said; quantized ones are named for what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from safetensors.torch import save_file

FLOATS = {"bf16": torch.bfloat16, "f16": torch.float16, "f64": torch.float64}
QUANTIZED = {"fp8": torch.float8_e4m3fn, "int8": torch.int8}


def write(path: Path, dtype: torch.dtype, *, convolutions_only: bool = False) -> Path:
    torch.manual_seed(0)
    state = timm.create_model("test_resnet", num_classes=10).state_dict()
    chosen = {key for key, value in state.items() if value.dtype == torch.float32}
    chosen = {key for key in chosen if not convolutions_only or state[key].dim() == 4}
    save_file({key: value.to(dtype) if key in chosen else value for key, value in state.items()}, path)
    return path


def evaluate(path: Path, precision: str = "auto") -> dict:
    options = ("--data", "digits", "--device", "cpu", "--workers", 0, "--precision", precision, "--json")
    return succeed("eval", path, "--arch", "timm/test_resnet", *options).document


@pytest.mark.parametrize("dtype", FLOATS.values(), ids=FLOATS)
@pytest.mark.parametrize("mixed", [False, True])
def test_eval_casts_and_says_so(dtype: torch.dtype, mixed: bool, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.safetensors", dtype, convolutions_only=mixed)
    found = evaluate(path)
    said = [note for note in found["notes"] if "scored as float32" in note]
    assert len(said) == 1
    assert str(dtype).removeprefix("torch.") in said[0]
    assert found["loss"] == pytest.approx(
        evaluate(write(tmp_path / "plain.safetensors", torch.float32))["loss"], rel=0.05
    )


@pytest.mark.parametrize("dtype", QUANTIZED.values(), ids=QUANTIZED)
def test_quantized_weights_are_named(dtype: torch.dtype, tmp_path: Path) -> None:
    path = write(tmp_path / "odd.safetensors", dtype)
    document = succeed("inspect", path, "--json").document
    assert document["next"].startswith("nothing: quantized")
    assert [note for note in document["notes"] if "quantized" in note]
    for command in (("graft", path, "-o", tmp_path / "grafted"), ("eval", path, "--data", "digits", "--workers", 0)):
        refused = spgsurgeon(*command, "--arch", "timm/test_resnet", "--json")
        assert refused.document["error"]["code"] == "quantized-weights"
        assert not (tmp_path / "grafted").exists()
