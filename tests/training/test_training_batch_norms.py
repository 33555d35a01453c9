"""Batch norms with one value a channel are found before the original is scored, by layer and size."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from command_line import spgsurgeon
from torch import nn

from spgsurgeon.errors import UsageError
from spgsurgeon.training.soundness.batch_norms import check_batch_norms


def torch_refuses(model: nn.Module, side: int, batch_size: int) -> bool:
    try:
        model.train()(torch.zeros(batch_size, 3, side, side))
    except ValueError as error:
        return "more than 1 value per channel" in str(error)
    return False


@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("batch_size", [1, 2])
def test_refused_is_what_torch_refuses(side: int, batch_size: int) -> None:
    model = timm.create_model("test_resnet", num_classes=10)
    refused = torch_refuses(model, side, batch_size)
    assert refused == ((side, batch_size) == (32, 1))
    if not refused:
        check_batch_norms(model, (3, side, side), batch_size)
        return
    with pytest.raises(UsageError) as error:
        check_batch_norms(model, (3, side, side), batch_size)
    first = error.value.details["layers"][0]
    assert isinstance(model.get_submodule(first), nn.BatchNorm2d)
    assert first in error.value.message
    assert "32 x 32" in error.value.message


def test_train_says_so_at_once(tmp_path: Path) -> None:
    settings = ("data.image_size=32", "training.batch_size=1", "training.epochs=1", "trp.kind=none", "data.workers=0")
    command = ("train", "timm/test_resnet", "--random-weights", "--recipe", "digits-dropout", *settings)
    for more in ((), ("--dry-run",)):
        outcome = spgsurgeon(*command, "-o", tmp_path / "run", "--json", *more)
        assert outcome.code == 2
        assert outcome.document["error"]["code"] == "one-value-batch-norm"
        assert not (tmp_path / "run").exists()


def test_the_last_batch_may_be_one_image(tmp_path: Path) -> None:
    """Of 600 digits, a batch of 599 leaves one, which drop_last leaves out."""
    settings = ("data.image_size=32", "training.batch_size=599", "training.epochs=1", "data.workers=0", "--dry-run")
    command = ("train", "timm/test_resnet", "--random-weights", "--recipe", "digits-dropout", *settings, "--json")
    refused = spgsurgeon(*command, "training.drop_last=false", "-o", tmp_path / "run")
    assert refused.document["error"]["code"] == "one-value-batch-norm"
    assert "drop_last" in refused.document["error"]["hint"]
    assert spgsurgeon(*command, "-o", tmp_path / "run").code == 0
