"""Optimizers by name, what decays, learning rates by hand, and an optimizer's state as tensors and numbers."""

import copy
import json
import math
from typing import Any

import pytest
import torch
from tiny_runs import tiny_grafted
from torch.nn.functional import cross_entropy

from spgsurgeon.errors import DamagedFileError, UsageError
from spgsurgeon.recipe.training_section import OptimizerSection, ScheduleSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.runtime.memory_format import lay_out_convolutions
from spgsurgeon.training.optimization import (
    learning_rate,
    make_optimizer,
    make_schedule,
    optimizer_state,
    restore_optimizer,
)


def step(grafted: GraftedModel, optimizer: torch.optim.Optimizer, seed: int) -> None:
    torch.manual_seed(seed)
    optimizer.zero_grad()
    cross_entropy(grafted(torch.randn(8, 3, 8, 8)), torch.randint(0, 4, (24,))).backward()
    optimizer.step()


def equal(left: GraftedModel, right: GraftedModel) -> bool:
    return all(torch.equal(a, b) for a, b in zip(left.parameters(), right.parameters(), strict=True))


# lamb keeps its step in its groups, nadam numbers in its state, muon either kind of state for each parameter
@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb", "nadam", "adan", "radam", "muon", "adafactor", "lion"])
@pytest.mark.parametrize("decay_bias_and_norm", [True, False])
def test_a_restored_optimizer_goes_on_bit_for_bit(name: str, decay_bias_and_norm: bool) -> None:
    """Its state is kept contiguous, whereas weights, and so their state, may lie otherwise."""
    settings = OptimizerSection(name=name, lr=0.01, decay_bias_and_norm=decay_bias_and_norm)
    grafted = tiny_grafted()
    lay_out_convolutions(grafted, torch.channels_last)
    optimizer = make_optimizer(grafted, settings)
    for seed in range(3):
        step(grafted, optimizer, seed)
    tensors, numbers = optimizer_state(optimizer, grafted)
    shuffled = {key: tensors[key].clone(memory_format=torch.contiguous_format) for key in sorted(tensors, reverse=True)}
    twin = copy.deepcopy(grafted)
    restored = make_optimizer(twin, settings)
    restore_optimizer(restored, twin, shuffled, json.loads(json.dumps(numbers)))
    amnesiac = copy.deepcopy(grafted)
    fresh = make_optimizer(amnesiac, settings)
    for seed in range(3, 6):
        step(grafted, optimizer, seed)
        step(twin, restored, seed)
        step(amnesiac, fresh, seed)
    assert equal(grafted, twin)
    assert not equal(grafted, amnesiac)


def test_the_state_of_another_model_or_optimizer() -> None:
    grafted = tiny_grafted()
    optimizer = make_optimizer(grafted, OptimizerSection(name="adamw"))
    step(grafted, optimizer, 0)
    tensors, numbers = optimizer_state(optimizer, grafted)
    smaller = tiny_grafted(replicas=1)
    with pytest.raises(DamagedFileError, match=r"another model: it knows 'replicas\.0\.1\.projection"):
        restore_optimizer(make_optimizer(smaller, OptimizerSection(name="adamw")), smaller, tensors, numbers)
    groups = make_optimizer(grafted, OptimizerSection(name="adamw", decay_bias_and_norm=False))
    with pytest.raises(DamagedFileError, match="another optimizer"):
        restore_optimizer(groups, grafted, tensors, numbers)


def test_unknown_names() -> None:
    with pytest.raises(UsageError, match="unknown optimizer 'adamww'") as caught:
        make_optimizer(tiny_grafted(), OptimizerSection(name="AdamWW"))
    assert "'adamw'" in str(caught.value.hint)


@pytest.mark.parametrize(("name", "reason"), [("adahessian", "second derivatives"), ("kronw", "resumed")])
def test_optimizers_that_the_loop_can_not_serve(name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        make_optimizer(tiny_grafted(), OptimizerSection(name=name))


@pytest.mark.skipif(torch.cuda.is_available(), reason="it may be usable here")
def test_an_optimizer_that_needs_what_is_not_here() -> None:
    with pytest.raises(UsageError, match=r"'fusedadam' can't be used here: .*CUDA"):
        make_optimizer(tiny_grafted(), OptimizerSection(name="fusedadam"))


@pytest.mark.parametrize("nesterov", [True, False])
def test_sgd_is_what_its_settings_say(nesterov: bool) -> None:
    optimizer = make_optimizer(
        tiny_grafted(), OptimizerSection(lr=0.3, momentum=0.7, weight_decay=0.2, nesterov=nesterov)
    )
    assert isinstance(optimizer, torch.optim.SGD)
    group = optimizer.param_groups[0]
    assert [group[key] for key in ("lr", "momentum", "weight_decay", "nesterov")] == [0.3, 0.7, 0.2, nesterov]


def decay_of(grafted: GraftedModel, settings: OptimizerSection) -> dict[str, float]:
    groups = make_optimizer(grafted, settings).param_groups
    found: dict[Any, float] = {p: group["weight_decay"] for group in groups for p in group["params"]}
    return {name: found[parameter] for name, parameter in grafted.named_parameters()}


def test_what_decays() -> None:
    grafted = tiny_grafted()
    assert set(decay_of(grafted, OptimizerSection(weight_decay=0.3)).values()) == {0.3}
    grafted.base.no_weight_decay = lambda: {"head.weight"}
    decay = decay_of(grafted, OptimizerSection(weight_decay=0.3, decay_bias_and_norm=False))
    assert {name for name, value in decay.items() if value} == {
        "base.body.0.weight",
        "replicas.0.0.projection.weight",
        "replicas.0.1.projection.weight",
    }


def test_a_frozen_parameter_is_left_out() -> None:
    grafted = tiny_grafted()
    grafted.base.head.weight.requires_grad_(False)
    for decay in (True, False):
        groups = make_optimizer(grafted, OptimizerSection(decay_bias_and_norm=decay)).param_groups
        assert not any(p is grafted.base.head.weight for group in groups for p in group["params"])


EPOCHS, PER_EPOCH, LR = 6, 5, 0.8
HAND: dict[str, Any] = {
    "constant": lambda k: LR,
    "step": lambda k: LR * 0.1 ** (k // (2 * PER_EPOCH)),
    "cosine": lambda k: 0.02 + (LR - 0.02) * (1 + math.cos(math.pi * k / 30)) / 2,
    "linear": lambda k: 0.02 + (LR - 0.02) * (1 - k / 30),
    "poly": lambda k: 0.02 + (LR - 0.02) * (1 - k / 30) ** 0.7,
}


@pytest.mark.parametrize("warmup", [0, 0.5, 2])
@pytest.mark.parametrize("name", HAND)
def test_learning_rates_by_hand(name: str, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    settings = ScheduleSection(name=name, every=2, gamma=0.1, power=0.7, warmup_epochs=warmup, min_lr=0.02)
    schedule = make_schedule(optimizer, settings, EPOCHS, PER_EPOCH)
    for k in (29, 0, 1, 2, 4, 9, 10, 11, 15, 20, 3, 25, 29):  # in any order: nothing is remembered
        schedule.step_update(k)
        by_hand = LR * k / (warmup * PER_EPOCH) if k < warmup * PER_EPOCH else HAND[name](k)
        assert learning_rate(optimizer) == pytest.approx(by_hand, rel=1e-12, abs=1e-15), k
