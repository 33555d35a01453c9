"""Surgery on modules in memory, as a notebook calls it."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch

import spgsurgeon
from spgsurgeon.errors import UsageError

KINDS: list[dict[str, Any]] = [
    {"trp": "dropout", "replicas": 2, "rate": 0.2},
    {"trp": "depth", "replicas": 2},
    {"trp": "dropout", "site": "fc"},
]


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("first", KINDS[:2], ids=str)
def test_grafting_twice_says_so_and_leaves_the_first_graft_as_it_is(
    first: dict[str, Any], settings: dict[str, Any]
) -> None:
    model = timm.create_model("test_resnet", num_classes=5)
    grafted = spgsurgeon.graft(model, **first)
    for given in (model, grafted, torch.nn.Sequential(model)):
        with pytest.raises(UsageError, match="grafted already") as refused:
            spgsurgeon.graft(given, **settings)
        assert refused.value.code == "grafted-already"
    assert grafted.train()(torch.rand(2, 3, 64, 64)).shape == (2 * grafted.steps, 5)
    assert spgsurgeon.strip(grafted) is model
    spgsurgeon.graft(model, **first)
