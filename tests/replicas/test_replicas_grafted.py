"""The grafted model: identity at the start, one stacked pass, copies, autocast, compilation."""

import copy
from typing import NamedTuple

import pytest
import torch
from attaching import attach
from torch import Tensor, nn

from spgsurgeon.errors import UsageError, VerificationError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.grafted import detach
from spgsurgeon.replicas.kinds.dropout import Dropout


class Flat(nn.Module):
    """A vector head, with dropout and batch normalisation in the body."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.head = nn.Linear(8, 5)

    def forward(self, images):
        return self.head(self.body(images))


class Maps(nn.Module):
    """A 1x1 convolution as the head, something after it, as SqueezeNet has."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 3)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, images):
        return nn.functional.adaptive_avg_pool2d(self.head(self.body(images)).relu(), 1).flatten(1)


class Averaged(nn.Module):
    """Two heads of different widths, whose logits are averaged."""

    sites = ("head", "branch_head")

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.branch = nn.Linear(8, 6)
        self.head, self.branch_head = nn.Linear(8, 5), nn.Linear(6, 5)

    def forward(self, images):
        hidden = self.body(images)
        return (self.head(hidden) + self.branch_head(self.branch(hidden))) / 2


class Outputs(NamedTuple):
    logits: Tensor
    auxiliary: Tensor


class Auxiliary(Averaged):
    """The second head is an output of its own, in train mode only."""

    def forward(self, images):
        hidden = self.body(images)
        logits = self.head(hidden)
        return Outputs(logits, self.branch_head(self.branch(hidden))) if self.training else logits


@pytest.fixture(params=[Flat, Maps])
def base(request):
    torch.manual_seed(0)
    return request.param()


IMAGES = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(1))


def test_eval_mode_is_the_base_bit_for_bit(base):
    base.eval()
    before, state = base(IMAGES), copy.deepcopy(base.state_dict())
    grafted = attach(base, "head", replicas=3, rate=0.2)
    assert torch.equal(grafted(IMAGES), before)
    assert list(grafted.base.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in grafted.base.state_dict().items())


def test_train_mode_without_dropout_repeats_the_base(base):
    grafted = attach(base, "head", replicas=3, rate=0.0).train()
    seen = []
    base.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    logits = grafted(IMAGES).unflatten(0, (4, 6))
    hidden = seen[0].unflatten(0, (4, 6))
    for t in range(1, 4):
        assert torch.equal(hidden[t], hidden[0])
        torch.testing.assert_close(logits[t], logits[0])


def test_each_replica_drops_from_the_one_before(base):
    grafted = attach(base, "head", replicas=3, rate=0.3).train()
    seen = []
    base.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    grafted(torch.randn(256, 3, 9, 9))
    steps = seen[0].unflatten(0, (4, 256))
    alive = steps[0] != 0
    dropped = [((step == 0) & alive).sum() / alive.sum() for step in steps]
    assert [d.item() for d in dropped] == pytest.approx(Dropout(rate=0.3).step_values(), abs=0.05)
    assert not ((steps[1] == 0) & alive & (steps[3] != 0)).any()


def test_an_episode_costs_one_forward_pass_of_the_base(base):
    calls = []
    base.body.register_forward_hook(lambda *_: calls.append(1))
    attach(base, "head", replicas=3, rate=0.2).train()(IMAGES)
    assert len(calls) == 1


def test_every_replica_learns_within_two_steps(base):
    grafted = attach(base, "head", replicas=3, rate=0.1).train()
    optimizer = torch.optim.SGD(grafted.parameters(), lr=0.1)
    labels = grafted.eval()(IMAGES).argmax(1)  # the base is right, so that episodes run on
    grafted.train()
    grafted.base.eval()
    for _ in range(2):
        optimizer.zero_grad()
        spg_loss(grafted(IMAGES), labels).loss.backward()
        optimizer.step()
    assert all(p.any() for p in grafted.replicas[0][0].parameters())


def test_detach_gives_the_base_back_without_leftovers(base):
    keys = list(base.state_dict())
    hooks = len(base.head._forward_pre_hooks)
    grafted = attach(base, "head", replicas=2, rate=0.2)
    assert detach(grafted) is base
    assert list(base.state_dict()) == keys
    assert len(base.head._forward_pre_hooks) == hooks
    assert base.train()(IMAGES).shape == (6, 5)


def test_detach_refuses_a_base_that_changed_shape(base):
    grafted = attach(base, "head", replicas=2, rate=0.2)
    base.head = nn.Linear(8, 7) if isinstance(base, Flat) else nn.Conv2d(8, 7, 1)
    with pytest.raises(VerificationError, match="keys, order, shapes"):
        detach(grafted)


def test_a_copy_is_grafted_by_its_own_replicas(base):
    grafted = attach(base, "head", replicas=2, rate=0.0).train()
    twin = copy.deepcopy(grafted)
    nn.init.ones_(next(twin.replicas.parameters()))
    grafted.base.eval(), twin.base.eval()
    mine, theirs = grafted(IMAGES), twin(IMAGES)
    assert torch.equal(mine[:6], theirs[:6])
    assert not torch.equal(mine[6:], theirs[6:])
    twin.eval()
    assert grafted(IMAGES).shape[0] == 18  # the copy's mode is its own
    assert len(detach(twin).head._forward_pre_hooks) == 0


def test_grafting_draws_no_random_numbers(base):
    state = torch.random.get_rng_state()
    attach(base, "head", replicas=3, rate=0.2)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_dtype_and_device_follow_the_head(base):
    grafted = attach(base.to("meta", torch.bfloat16), "head", replicas=2, rate=0.2)
    assert {(p.device.type, p.dtype) for p in grafted.replicas.parameters()} == {("meta", torch.bfloat16)}


def test_it_works_under_autocast(base):
    grafted = attach(base, "head", replicas=3, rate=0.2).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = spg_loss(grafted(IMAGES), torch.zeros(6, dtype=torch.long))
    result.loss.backward()
    assert result.loss.dtype == torch.float32
    assert all(p.grad is not None for p in grafted.parameters())


@pytest.mark.slow
def test_it_compiles_to_one_graph(base):
    grafted = attach(base, "head", replicas=3, rate=0.0).train()
    labels = torch.arange(6) % 5

    def step(images, labels):
        return spg_loss(grafted(images), labels).loss

    explanation = torch._dynamo.explain(step)(IMAGES, labels)
    assert (explanation.graph_count, explanation.graph_break_count) == (1, 0)
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert compiled(IMAGES, labels).item() == pytest.approx(step(IMAGES, labels).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rate": 1.0}, "rate: 1.0 is refused"),
        ({"rate": -0.1}, "rate: -0.1 is refused"),
        ({"replicas": 0}, "replicas: 0 is refused"),
        ({"places": "haed"}, "no submodule"),
        ({"places": "body"}, "before a Linear"),
        ({"kind": "depht"}, "unknown kind"),
    ],
)
def test_what_can_not_be_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        attach(Flat(), **({"places": "head", "replicas": 3, "rate": 0.2} | settings))


def test_grafting_twice_is_refused(base):
    grafted = attach(base, "head", replicas=1, rate=0.2)
    for model in (base, grafted):
        with pytest.raises(UsageError, match="grafted already"):
            attach(model, "head", replicas=1, rate=0.2)


@pytest.fixture(params=[Averaged, Auxiliary])
def several(request):
    torch.manual_seed(0)
    return request.param()


def test_every_head_has_a_chain_of_its_own_width(several):
    grafted = attach(several, several.sites, replicas=3, rate=0.2)
    assert [[replica.projection.in_features for replica in chain] for chain in grafted.replicas] == [[8] * 3, [6] * 3]
    assert grafted.steps == 4
    twin = attach(type(several)(), several.sites, replicas=3, rate=0.2)
    nn.init.normal_(grafted.replicas[1][2].projection.weight)
    twin.replicas.load_state_dict(grafted.replicas.state_dict())
    assert torch.equal(twin.replicas[1][2].projection.weight, grafted.replicas[1][2].projection.weight)


def test_heads_that_the_base_combines_come_out_combined():
    torch.manual_seed(0)
    base = Averaged()
    expected = base(IMAGES)
    grafted = attach(base, base.sites, replicas=2, rate=0.0).train()
    with torch.no_grad():
        grafted.replicas[1][1].projection.bias.fill_(1.0)
    steps = grafted(IMAGES).unflatten(0, (3, 6))
    torch.testing.assert_close(steps[:2], expected.expand(2, -1, -1))
    torch.testing.assert_close(steps[2], expected + base.branch_head.weight.sum(1) / 2)


@pytest.mark.parametrize("kind", [{"kind": "dropout", "replicas": 2, "rate": 0.0}, {"kind": "none"}])
def test_outputs_of_train_mode_come_stacked_as_further_units(kind):
    torch.manual_seed(0)
    base = Auxiliary()
    in_eval, in_train = base.eval()(IMAGES), base.train()(IMAGES)
    grafted = attach(base, base.sites, **kind)
    logits = grafted(IMAGES)
    assert logits.shape == (grafted.steps * 6, 5, 2)
    for step in logits.unflatten(0, (grafted.steps, 6)):
        torch.testing.assert_close(step, torch.stack(in_train, dim=-1))
    assert torch.equal(grafted.eval()(IMAGES), in_eval)


def test_replicas_of_every_head_learn(several):
    grafted = attach(several, several.sites, replicas=2, rate=0.0).train()
    labels = grafted(IMAGES)[:6].argmax(1)  # right from the start, so that episodes run on
    spg_loss(grafted(IMAGES), labels, (0.4, 0.2), label_smoothing=0.1).loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in grafted.replicas.parameters())


def test_a_copy_of_several_heads_is_grafted_by_its_own_replicas(several):
    grafted = attach(several, several.sites, replicas=1, rate=0.0).train()
    twin = copy.deepcopy(grafted)
    nn.init.ones_(twin.replicas[1][0].projection.weight)
    mine, theirs = grafted(IMAGES), twin(IMAGES)
    assert torch.equal(mine[:6], theirs[:6])
    assert not torch.equal(mine[6:], theirs[6:])
    detach(twin)
    assert not any(module._forward_pre_hooks for module in twin.base.modules())
    assert all(several.get_submodule(site)._forward_pre_hooks for site in several.sites)


@pytest.mark.slow
def test_several_heads_compile_to_one_graph(several):
    grafted = attach(several, several.sites, replicas=2, rate=0.0).train()
    labels = torch.arange(6) % 5

    def step(images, labels):
        return spg_loss(grafted(images), labels, (0.4, 0.2)).loss

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    assert compiled(IMAGES, labels).item() == pytest.approx(step(IMAGES, labels).item(), rel=1e-5)


@pytest.mark.parametrize("sites", [[], ["head", "head"]])
def test_sites_are_one_or_several_different_ones(sites):
    with pytest.raises(UsageError, match="one submodule or several different ones"):
        attach(Flat(), sites, replicas=1, rate=0.2)
