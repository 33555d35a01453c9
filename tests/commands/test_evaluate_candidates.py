"""`eval` with several --arch: which of the architectures that weights fit alike do they score best as?"""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from command_line import succeed
from PIL import Image

from spgsurgeon.commands.evaluate import evaluate_model
from spgsurgeon.commands.evaluating.candidates import evaluate_candidates
from spgsurgeon.commands.evaluating.request import EvaluationRequest
from spgsurgeon.errors import ArchitectureError

TWINS = ["timm/test_efficientnet_ln", "timm/test_efficientnet_gn"]


@pytest.fixture
def case(tmp_path: Path) -> tuple[str, str]:
    """Weights of the first twin, with two classes, and images of as many."""
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet_ln", num_classes=2).state_dict(), tmp_path / "weights.pth")
    for number in range(6):
        place = tmp_path / "data" / "val" / f"class{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((170, 180), 60).convert("RGB").save(place / f"{number}.png")
    return str(tmp_path / "weights.pth"), str(tmp_path / "data")


def test_each_is_scored_as_it_is_alone(case: tuple[str, str]) -> None:
    model, data = case
    document = evaluate_candidates(EvaluationRequest(model, data, workers=0), [*TWINS, TWINS[0]])
    assert [one["arch"] for one in document["candidates"]] == TWINS
    for one in document["candidates"]:
        alone = evaluate_model(EvaluationRequest(model, data, arch=one["arch"], workers=0))
        assert (one["loss"], one["top1"], document["samples"]) == (alone["loss"], alone["top1"], 6)
    losses = {one["loss"] for one in document["candidates"]}
    assert len(losses) == 2, "the twins compute something else"
    assert {*document["differences"]["layers"]} == {*TWINS}


def test_the_table_has_a_row_each(case: tuple[str, str]) -> None:
    model, data = case
    archs = [part for arch in TWINS for part in ("--arch", arch)]
    outcome = succeed("eval", model, *archs, "--data", data, "--workers", 0)
    assert [name for name in TWINS if name in outcome.out] == TWINS
    assert succeed("eval", model, *archs, "--data", data, "--workers", 0, "--json").document["task"] == "classification"


def test_one_that_does_not_fit_is_named(case: tuple[str, str]) -> None:
    model, data = case
    with pytest.raises(ArchitectureError, match="test_vit"):
        evaluate_candidates(EvaluationRequest(model, data, workers=0), [TWINS[0], "timm/test_vit"])
