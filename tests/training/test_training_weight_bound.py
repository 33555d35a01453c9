"""What a weight can have become: never less than what torch's optimizers make of it."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_runs import SETTINGS, changed, tiny_retraining
from torch import Tensor

from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.training.soundness.number_guard import _norms as norms
from spgsurgeon.training.soundness.weight_bound import WeightBound
from spgsurgeon.training.statistics import EpisodeStatistics

OPTIMIZERS: dict[str, Callable[[list[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.5),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9, weight_decay=0.1),
    "nesterov": lambda p: torch.optim.SGD(p, lr=3.0, momentum=0.99, weight_decay=0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=0.5),
    "adamw": lambda p: torch.optim.AdamW(p, lr=2.0, weight_decay=0.1),
    "amsgrad": lambda p: torch.optim.AdamW(p, lr=0.1, amsgrad=True),
    "eager": lambda p: torch.optim.Adam(p, lr=1e31, betas=(0.5, 0.3)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_no_weight_is_above_the_bound(name: str) -> None:
    """Gradients of all sizes, in bursts, until weights overflow: not one does that is said to be finite."""
    weight = torch.nn.Parameter(torch.randn(50))
    optimizer = OPTIMIZERS[name]([weight])
    bound = WeightBound(optimizer)
    assert not bound.known
    bound.seen(float(weight.detach().norm()))
    for step in range(100):
        weight.grad = torch.randn(50) * 10.0 ** min(step % 7 - 3 + step // 3, 35)
        largest = float(weight.grad.double().norm())
        rates = bound.rates()
        optimizer.step()
        bound.follow(largest, rates)
        if bound.known:
            assert weight.detach().abs().max() <= bound._weight
        elif not weight.isfinite().all():
            break
    assert step > 20 or name == "eager"
    assert bound.known == ("adam" in name or name == "amsgrad")


def test_little_is_known_where_numbers_are_not() -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    bound = WeightBound(OPTIMIZERS["momentum"]([weight]))
    for largest in (math.inf, math.nan):
        bound.seen(1.0)
        bound.follow(largest, bound.rates()._replace(lr=0.0, momentum=0.0))
        assert not bound.known
        bound.follow(1.0, bound.rates()._replace(lr=0.0, momentum=0.0))
        assert not bound.known


@pytest.mark.parametrize(
    ("optimizer", "looks"),
    [
        (OptimizerSection(lr=0.05), [True, False, False]),
        (OptimizerSection(name="adamw", lr=0.05), [True, False, False]),
        (OptimizerSection(lr=1e16), [True, True]),
        (OptimizerSection(name="lamb", lr=0.05), [True, True, True]),
    ],
)
def test_weights_are_looked_at_where_they_may_be_infinite(
    optimizer: OptimizerSection, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    retraining = tiny_retraining(changed(SETTINGS, optimizer=optimizer))
    retraining.grafted.train()
    batch = next(retraining._training.epoch(0))
    weight = retraining.grafted.base.head.weight.data_ptr()
    found: list[bool] = []

    def watched(tensors: list[Tensor]) -> Any:
        found.append(weight in {tensor.data_ptr() for tensor in tensors})
        return norms(tensors)

    monkeypatch.setattr("spgsurgeon.training.soundness.number_guard._norms", watched)
    statistics = EpisodeStatistics(retraining.grafted.steps, 4, retraining.processes)
    for _ in looks:
        retraining._stepper.apply(retraining._stepper.accumulate([batch]), statistics, update=True)
    assert found == looks
