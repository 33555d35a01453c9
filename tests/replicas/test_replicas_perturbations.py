"""Kinds that change what the head reads without (or beside) weights: noise, and dropout of whole channels.

Shapes: N samples, T = 3 replicas.
"""

from __future__ import annotations

import math

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from spgsurgeon.commands.modules import graft
from spgsurgeon.errors import ArchitectureError
from spgsurgeon.replicas.kinds import kind_named
from spgsurgeon.surgery.proof import fingerprint, prove_graft

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def classifier() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("test_resnet", num_classes=5)


def with_maps() -> nn.Module:
    """Return a model whose head, a 1x1 convolution, reads a map."""
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(num_classes=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("kind", "make"), [("feature-noise", classifier), ("feature-noise", with_maps), ("channel-dropout", with_maps)]
)
def test_replicas_start_as_the_identity_with_their_perturbation_off(kind, make, dtype) -> None:
    module, images = make().to(dtype).eval(), IMAGES.to(dtype)
    before = fingerprint(module, images)
    assert all(prove_graft(graft(module, kind, example=images), before, images).values())


def states_of(module: nn.Module, kind: str, **settings: float) -> Tensor:
    """Return the hidden states of one pass in train mode, [T+1, N, D, ...]."""
    (states,) = graft(module, kind, example=IMAGES, **settings).train().hidden_states(IMAGES)[0].values()
    return states.detach()


@pytest.mark.parametrize("make", [classifier, with_maps])
def test_noise_is_a_share_of_each_units_features_and_adds_up_as_it_says(make) -> None:
    states = states_of(make(), "feature-noise", scale=0.3)
    power = states[0].square().mean(1, keepdim=True)
    for step, value in enumerate(kind_named("feature-noise")(scale=0.3).step_values()):
        share = ((states[step] - states[0]).square() / power)[power.expand_as(states[0]) > 0].mean().sqrt()
        assert share == pytest.approx(value, rel=0.2)


def test_noise_is_that_of_a_walk_step_by_step() -> None:
    module = graft(classifier(), "feature-noise", scale=0.3, example=IMAGES).train()
    chain = module.replicas[0]
    hidden = torch.randn(4, 6)
    torch.manual_seed(5)
    found = chain(hidden)
    torch.manual_seed(5)
    for step in range(1, 4):
        draws = torch.randn(4, 6)
        for row in range(4):
            size = math.sqrt(sum(float(value) ** 2 for value in found[step - 1][row]) / 6)
            for column in range(6):
                expected = float(found[step - 1][row, column]) + 0.3 * size * float(draws[row, column])
                assert float(found[step][row, column]) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_channels_are_dropped_whole_and_stay_dropped() -> None:
    states = states_of(with_maps(), "channel-dropout", rate=0.3)
    alive = states[0].abs().amax((2, 3)) > 0
    kept = 0.7
    for step in range(1, 4):
        gone = states[step].abs().amax((2, 3)) == 0
        whole = torch.where(gone[..., None, None], 0, states[0] / kept**step)
        torch.testing.assert_close(states[step], whole)
        assert (states[step - 1].abs().amax((2, 3)) == 0)[~gone].sum() == 0
        assert gone[alive].float().mean() == pytest.approx(1 - kept**step, abs=0.1)


@pytest.mark.parametrize("site", [None, "fc"])
def test_a_head_that_reads_no_map_has_no_channels_to_drop(site) -> None:
    with pytest.raises(ArchitectureError, match="whole channels are dropped from a map, and the head 'fc'") as caught:
        graft(classifier(), "channel-dropout", example=IMAGES, site=site)
    assert caught.value.hint
