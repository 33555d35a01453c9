"""The grafted model: identity at the start, one stacked pass, copies, autocast, compilation."""

import copy

import pytest
import torch
from torch import nn

from spgsurgeon.errors import UsageError, VerificationError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.trp.dropout import cumulative_rates
from spgsurgeon.trp.grafted import attach, detach


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
    assert [d.item() for d in dropped] == pytest.approx(cumulative_rates(0.3, 3), abs=0.05)
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
    moved = [p.abs().sum() > 0 for name, p in grafted.replicas[0].named_parameters()]
    assert all(moved)


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
        ({"rate": 1.0}, "outside"),
        ({"rate": -0.1}, "outside"),
        ({"replicas": 0}, "at least one"),
        ({"site": "haed"}, "no submodule"),
        ({"site": "body"}, "before a Linear"),
        ({"kind": "depth"}, "unknown kind"),
    ],
)
def test_what_can_not_be_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        attach(Flat(), **({"site": "head", "replicas": 3, "rate": 0.2} | settings))


def test_grafting_twice_is_refused(base):
    grafted = attach(base, "head", replicas=1, rate=0.2)
    for model in (base, grafted):
        with pytest.raises(UsageError, match="grafted already"):
            attach(model, "head", replicas=1, rate=0.2)
