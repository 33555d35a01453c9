"""Replicas of a wide head: their memory is said before it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from command_line import spgsurgeon, succeed
from torch import nn

import spgsurgeon as package
from spgsurgeon.errors import SurgeonError
from spgsurgeon.replicas.kinds import room

WIDE = 150_000


class Wide(nn.Module):
    """A classifier whose head reads very much; without memory of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Conv2d(3, WIDE, 1)
        self.head = nn.Linear(WIDE, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.spread(images).mean((2, 3)))


def test_ninety_gigabytes_a_replica_are_refused_before_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_on", lambda device: 64 * 10**9)
    with pytest.raises(SurgeonError) as refused:
        package.graft(Wide(), replicas=1)
    assert refused.value.code == "no-room"
    assert "which is 150,000 wide, have weights of 90.0 GB, and 64.0 GB are free (cpu)" in refused.value.message
    grafted = package.graft(Wide(), replicas=2, projection=False)  # which has none
    assert grafted(torch.rand(1, 3, 4, 4)).shape == (3, 2)


def test_what_fits_is_grafted_to_the_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model("test_resnet", num_classes=3)
    needed = 2 * (96 * 96 + 96) * 4
    monkeypatch.setattr(room, "free_on", lambda device: needed - 1)
    with pytest.raises(SurgeonError):
        package.graft(model, replicas=2)
    monkeypatch.setattr(room, "free_on", lambda device: needed)
    package.graft(model, replicas=2)


@pytest.mark.parametrize("verb", ["graft", "train"])
def test_verbs_say_it_and_write_nothing(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "free_on", lambda device: 1000)
    base = ("timm/test_resnet", "--random-weights", "-o", tmp_path / "out", "--json")
    recipe = ("--recipe", "digits-dropout", "training.device=cpu") if verb == "train" else ()
    outcome = spgsurgeon(verb, *base, *recipe)
    assert (outcome.code, outcome.document["error"]["code"]) == (1, "no-room")
    assert not (tmp_path / "out").exists()


def test_a_run_says_that_gradients_and_moments_will_not_fit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("spgsurgeon.training.soundness.memory.free_on", lambda device: 10**6)
    recipe = ("--recipe", "digits-dropout", "training.device=cpu", "--dry-run")
    document = succeed(
        "train", "timm/test_resnet", "--random-weights", *recipe, "-o", tmp_path / "x", "--json"
    ).document
    learning = document["parameters"] + document["temporary_parameters"]
    said = next(note for note in document["notes"] if "gradients and two moments" in note)
    assert f"{3 * 4 * learning / 1e9:.3f} GB" in said
    assert "0.001 GB are free (cpu)" in said
