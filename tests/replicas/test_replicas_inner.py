"""Kinds that run a layer of the body again: stochastic depth, dropped tokens, negative slopes, mixed statistics.

Shapes: N samples, T = 3 replicas.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from itertools import pairwise

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

from spgsurgeon.commands.modules import graft, strip
from spgsurgeon.errors import ArchitectureError, UsageError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.kinds.token_drop.module import kept_tokens
from spgsurgeon.surgery.proof import fingerprint, prove_graft

N = 6
IMAGES = torch.randn(N, 3, 64, 64, generator=torch.Generator().manual_seed(1))


def resnet() -> nn.Module:
    """Return a ResNet whose last block keeps the shape, and whose activations are modules that are called twice."""
    return torchvision.models.resnet18(num_classes=5)


def vit() -> nn.Module:
    return timm.create_model("test_vit", img_size=64, num_classes=5)


def averaging_vit() -> nn.Module:
    args = {"embed_dim": 32, "depth": 2, "num_heads": 2, "img_size": 64}
    return timm.create_model("vit_base_patch16_reg4_gap_256", num_classes=5, **args)


def mobilenet() -> nn.Module:
    return torchvision.models.mobilenet_v2(num_classes=5)


def efficientnet() -> nn.Module:
    return timm.create_model("test_efficientnet", num_classes=5)


KINDS: list[tuple[str, Callable[[], nn.Module]]] = [
    ("drop-path", resnet),
    ("drop-path", vit),
    ("token-drop", vit),
    ("token-drop", averaging_vit),
    ("leaky-slope", resnet),
    ("leaky-slope", mobilenet),
    ("norm-momentum", mobilenet),
    ("norm-momentum", efficientnet),
    ("norm-noise", mobilenet),
    ("norm-noise", efficientnet),
]
each_kind = pytest.mark.parametrize(
    ("kind", "make"), [pytest.param(kind, make, id=f"{kind}-{make.__name__}") for kind, make in KINDS]
)


def made(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return make()


def states_of(module: nn.Module, kind: str, **settings: float) -> Tensor:
    """Return the hidden states of one pass in train mode, [T+1, N, ...]."""
    (states,) = graft(module, kind, example=IMAGES, **settings).train().hidden_states(IMAGES)[0].values()
    return states.detach()


def seen(module: nn.Module, path: str, *, call: int = 0) -> tuple[Tensor, Tensor]:
    """Return what enters and what leaves a call of a submodule in train mode; running statistics stay."""
    found: list[tuple[Tensor, Tensor]] = []
    twin = copy.deepcopy(module).train()
    twin.get_submodule(path).inplace = False  # type: ignore[assignment]
    twin.get_submodule(path).register_forward_hook(lambda m, i, o: found.append((i[0].detach(), o.detach())))
    twin(IMAGES)
    return found[call]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@each_kind
def test_replicas_start_as_the_identity_with_their_perturbation_off(kind, make, dtype) -> None:
    module, images = made(make).to(dtype).eval(), IMAGES.to(dtype)
    before = fingerprint(module, images)
    grafted = graft(module, kind, example=images)
    assert all(prove_graft(grafted, before, images).values())
    states = torch.stack([*grafted.train().hidden_states(images)[0].values()])
    assert not torch.equal(states[0, -1], states[0, 0]), "in training they do change something"


@each_kind
def test_an_episode_costs_one_pass_of_the_body_and_has_a_gradient(kind, make) -> None:
    grafted = graft(made(make), kind, example=IMAGES).train()
    calls: list[int] = []
    first = next(part for part in grafted.base.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    logits = grafted(IMAGES)
    assert (calls, len(logits)) == ([N], 4 * N)
    spg_loss(logits, torch.arange(N) % 5, label_smoothing=0.1).loss.backward()
    assert first.weight.grad is not None
    assert first.weight.grad.any()


@each_kind
def test_a_copy_runs_its_own_replicas_and_nothing_is_kept_of_a_pass(kind, make) -> None:
    grafted = graft(made(make), kind, example=IMAGES).train()
    grafted(IMAGES)
    with pytest.raises(RuntimeError):
        grafted(IMAGES[:, :1])
    twin = copy.deepcopy(grafted)
    torch.manual_seed(2)
    expected = grafted(IMAGES)
    torch.manual_seed(2)
    torch.testing.assert_close(twin(IMAGES), expected)
    base = strip(twin.eval())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in base.modules())


def test_a_block_is_skipped_by_whole_samples_and_by_them_from_then_on() -> None:
    module = made(resnet)
    entered, left = seen(module, "layer4.1")
    states = states_of(module, "drop-path", rate=0.3)
    skipped = [[torch.equal(one, before) for one, before in zip(state, entered, strict=True)] for state in states]
    for state, skips in zip(states, skipped, strict=True):
        for one, skip, before, after in zip(state, skips, entered, left, strict=True):
            assert torch.equal(one, before if skip else after)
    assert not any(skipped[0])
    for earlier, later in pairwise(skipped):
        assert all(now or not before for before, now in zip(earlier, later, strict=True))


def test_blocks_are_skipped_as_often_as_the_steps_say() -> None:
    chain = graft(made(resnet), "drop-path", rate=0.3, example=IMAGES).train().replicas[0]
    states = chain(torch.zeros(4000, 1), torch.ones(4000, 1), nn.Identity())
    for step, state in enumerate(states):
        assert state.mean().item() == pytest.approx(1 - 0.7**step, abs=0.03)


def test_a_slope_is_added_to_that_of_the_last_activation() -> None:
    module = made(resnet)
    entered, left = seen(module, "layer4.1.relu", call=1)
    states = states_of(module, "leaky-slope", slope=0.1)
    assert torch.equal(states[0], left)
    for step in range(1, 4):
        expected = torch.where(entered > 0, entered, entered * 0.1 * step)
        torch.testing.assert_close(states[step], expected)
    assert graft(made(resnet), "leaky-slope", example=IMAGES).places[0].calls == 2


def test_a_leaky_activation_starts_from_its_own_slope() -> None:
    module = timm.create_model("resnet26d", layers=[1, 1, 1, 1], act_layer="leaky_relu", num_classes=5)
    own = module.layer4[0].act3.negative_slope
    entered, _ = seen(module, "layer4.0.act3")
    states = states_of(module, "leaky-slope", slope=0.2)
    torch.testing.assert_close(states[2], torch.where(entered > 0, entered, entered * (own + 0.4)))


@pytest.mark.parametrize(("make", "path"), [(mobilenet, "features.18.1"), (efficientnet, "bn2")])
def test_mixed_statistics_are_those_that_an_update_at_that_momentum_leaves(make, path) -> None:
    module = made(make)
    norm = module.get_submodule(path)
    entered, _ = seen(module, path)
    grafted = graft(module, "norm-momentum", momentum=0.5, example=IMAGES).train()
    (states,) = grafted.hidden_states(IMAGES)[0].values()
    for step in range(1, 4):
        reference = copy.deepcopy(norm)
        reference._forward_hooks.clear()
        reference._forward_pre_hooks.clear()
        reference.momentum = 0.5**step
        reference.train()(entered)
        torch.testing.assert_close(states[step], reference.eval()(entered), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("make", "path"), [(mobilenet, "features.18.1"), (efficientnet, "bn2")])
def test_noise_of_statistics_shifts_and_scales_whole_channels_by_a_walk_of_noise(make, path) -> None:
    module, norm = made(make), made(make).get_submodule(path)
    entered, _ = seen(module, path)
    torch.manual_seed(4)
    states = states_of(module, "norm-noise", noise=0.1)
    torch.manual_seed(4)
    walk = 0.1 * torch.randn(3, 2, entered.shape[1]).cumsum(0)
    deviation, mean = torch.std_mean(entered, (0, 2, 3), correction=0, keepdim=True)
    for step in range(1, 4):
        shift, stretch = (one.view(1, -1, 1, 1) for one in walk[step - 1])
        reference = copy.deepcopy(norm)
        reference.running_mean, reference.running_var = torch.zeros_like(shift[0, :, 0, 0]), torch.ones(walk.shape[2])
        reference.eps = 0.0
        normal = ((entered - mean) / (deviation.square() + norm.eps).sqrt() - shift) * (-stretch).exp()
        torch.testing.assert_close(states[step], reference.eval()(normal), rtol=1e-4, atol=1e-4)


def test_noise_of_statistics_adds_up_as_the_steps_say() -> None:
    chain = graft(made(mobilenet), "norm-noise", noise=0.1, example=IMAGES).train().replicas[0]
    norm, entered = nn.BatchNorm2d(4000), torch.randn(64, 4000, 1, 1)
    states = chain(norm(entered), entered, norm)
    for step, state in enumerate(states):
        assert state.mean((0, 2, 3)).std().item() == pytest.approx(0.1 * step**0.5, abs=0.01)


@pytest.mark.parametrize("kind", ["norm-momentum", "norm-noise"])
def test_a_frozen_batch_norm_stays_as_it_is(kind: str) -> None:
    grafted = graft(made(mobilenet), kind, example=IMAGES).train()
    grafted.base.eval()
    (states,) = grafted.hidden_states(IMAGES)[0].values()
    assert all(torch.equal(state, states[0]) for state in states)


def test_tokens_that_stay_are_the_surest_and_their_copies_fill_the_places() -> None:
    draws = torch.rand(50, 9, generator=torch.Generator().manual_seed(3))
    for rate in (0.0, 0.2, 0.488, 0.97):
        index = kept_tokens(draws, rate)
        for row, places in zip(draws.tolist(), index.tolist(), strict=True):
            staying = [token for token in range(9) if row[token] >= rate] or [row.index(max(row))]
            assert set(places) == set(staying)
            assert all(places[token] == token for token in staying)
            counts = [places.count(token) for token in staying]
            assert max(counts) - min(counts) <= 1 + 9 // len(staying)


@pytest.mark.parametrize("make", [vit, averaging_vit])
def test_dropped_tokens_stay_dropped_and_those_of_no_patch_stay(make) -> None:
    module = made(make)
    prefix, states = module.num_prefix_tokens, states_of(module, "token-drop", rate=0.3)
    assert torch.equal(states[:, :, :prefix], states[:1, :, :prefix].expand_as(states[:, :, :prefix]))
    present = [[{tuple(token.tolist()) for token in one[prefix:]} for one in state] for state in states]
    for earlier, later in pairwise(present):
        assert all(now <= before for before, now in zip(earlier, later, strict=True))
    assert sum(map(len, present[3])) < sum(map(len, present[1])) < sum(map(len, present[0]))


@pytest.mark.parametrize(
    ("kind", "make", "reason"),
    [
        ("drop-path", lambda: timm.create_model("test_resnet"), r"layer4\.0', can't be skipped"),
        ("drop-path", lambda: timm.create_model("mobilevit_xxs"), "is not residual throughout"),
        ("drop-path", lambda: torchvision.models.squeezenet1_1(), "not known for a SqueezeNet"),
        ("token-drop", resnet, "a ResNet has no sequence of tokens"),
        ("leaky-slope", vit, "what follows the last activation"),
        ("leaky-slope", efficientnet, "is a SiLU, which has no negative slope"),
        ("leaky-slope", lambda: torchvision.models.squeezenet1_1(), "follows the layer that makes the logits"),
        ("norm-momentum", resnet, r"what follows the last batch norm, 'layer4\.1\.bn2'"),
        ("norm-momentum", vit, "the model has no batch norm"),
        ("norm-noise", resnet, r"what follows the last batch norm, 'layer4\.1\.bn2'"),
    ],
)
def test_a_model_without_such_a_layer_is_refused(kind, make, reason) -> None:
    with pytest.raises(ArchitectureError, match=reason):
        graft(made(make), kind, example=IMAGES)


def test_a_place_of_ones_own_is_refused() -> None:
    with pytest.raises(UsageError, match="leaky-slope replicas attach to the last activation, which is found"):
        graft(made(resnet), "leaky-slope", site="layer4.1.relu")


@pytest.mark.slow
@each_kind
def test_it_compiles_to_one_graph(kind, make) -> None:
    grafted = graft(made(make), kind, example=IMAGES).train()

    def step(images: Tensor) -> Tensor:
        return spg_loss(grafted(images), torch.arange(N) % 5).loss

    torch.compile(step, backend="aot_eager", fullgraph=True)(IMAGES).backward()
