"""What replicas are compared with: dropout of a fixed rate without any, and a forward pass for each step."""

import copy

import pytest
import torch
from attaching import attach, attach_blocks
from torch import Tensor, nn

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.grafted import GraftedModel, detach
from spgsurgeon.replicas.places import Place
from spgsurgeon.surgery.proof import fingerprint, prove_graft

IMAGES = torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(1))
LABELS = torch.arange(6) % 5
WEIGHTS = (0.4, 0.2)


class Flat(nn.Module):
    """Dropout and batch normalisation in the body, vectors before the head."""

    sites = ("head",)

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.body(images).mean((2, 3)))


class Heads(nn.Module):
    """Two whole heads that read maps by name, with batch norms of their own."""

    sites = (Place("head", key="high", width=8), Place("head", key="low", width=6))

    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.high = nn.Sequential(nn.Conv2d(8, 5, 1), nn.BatchNorm2d(5), nn.ReLU(inplace=True))
            self.low = nn.Conv2d(6, 5, 1)

        def forward(self, maps: dict[str, Tensor]) -> Tensor:
            return self.high(maps["high"]) + self.low(maps["low"])

    def __init__(self) -> None:
        super().__init__()
        self.high, self.low = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 6, 3)
        self.head = self.Head()

    def forward(self, images: Tensor) -> Tensor:
        return self.head({"high": self.high(images), "low": self.low(images)}).mean((2, 3))


def grafted(kind: type[Flat] | type[Heads], head_batch: str, rate: float = 0.0, **options: float) -> GraftedModel:
    """Return a model in train mode whose replicas are no longer the identity, the same for each `head_batch`."""
    torch.manual_seed(0)
    model = attach(kind(**options), kind.sites, replicas=2, rate=rate, head_batch=head_batch).train()
    for parameter in model.replicas.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model


def gradients(model: nn.Module) -> dict[str, Tensor]:
    spg_loss(model(IMAGES), LABELS, WEIGHTS, "episode", label_smoothing=0.1).loss.backward()
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


# A pass for each step


@pytest.mark.parametrize("frozen", [True, False], ids=["base-in-eval", "base-in-train"])
@pytest.mark.parametrize("kind", [Flat, Heads])
def test_rollouts_give_the_outputs_and_gradients_of_the_single_pass(kind, frozen: bool) -> None:
    single, rolled = grafted(kind, "stacked"), grafted(kind, "rollouts")
    for model in (single, rolled):
        model.base.train(not frozen)
    logits = single(IMAGES)
    assert not torch.allclose(logits[:6], logits[6:12])
    torch.testing.assert_close(rolled(IMAGES), logits)
    expected, found = gradients(single), gradients(rolled)
    assert list(found) == list(expected)
    assert len(found) == len(list(single.parameters()))
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("kind", [Flat, Heads])
def test_running_statistics_follow_the_pass_of_step_0_alone(kind) -> None:
    rolled, base = grafted(kind, "rollouts"), detach(grafted(kind, "stacked"))
    rolled(IMAGES), base(IMAGES)
    expected, found = dict(base.named_buffers()), dict(rolled.base.named_buffers())
    assert {int(value) for name, value in found.items() if name.endswith("num_batches_tracked")} == {1}
    assert all(torch.equal(found[name], buffer) for name, buffer in expected.items())


def test_each_pass_is_one_of_the_whole_base_and_draws_anew() -> None:
    rolled = grafted(Flat, "rollouts", dropout=0.5)
    for parameter in rolled.replicas.parameters():
        nn.init.zeros_(parameter)
    passes = []
    rolled.base.body.register_forward_hook(lambda module, inputs, output: passes.append(output))
    steps = rolled(IMAGES).unflatten(0, (3, 6))
    assert len(passes) == 3
    assert not torch.equal(steps[0], steps[1])
    assert not torch.equal(steps[1], steps[2])


def test_rollouts_in_eval_mode_are_the_base_and_the_laws_hold() -> None:
    torch.manual_seed(0)
    base = Flat(0.5).eval()
    before = fingerprint(base, IMAGES)
    rolled = attach(base, "head", replicas=2, rate=0.3, head_batch="rollouts")
    assert all(prove_graft(rolled, before, IMAGES).values())
    states, logits = rolled.train().hidden_states(IMAGES)
    assert (states["head"].shape, logits.shape) == ((3, 6, 8), (18, 5))
    twin = copy.deepcopy(rolled)
    detach(rolled)
    assert twin.train()(IMAGES).shape == (18, 5)
    assert not any(module._forward_pre_hooks for module in base.modules())


def test_rollouts_compile() -> None:
    rolled = grafted(Flat, "rollouts")
    torch.testing.assert_close(torch.compile(rolled, backend="eager")(IMAGES), rolled(IMAGES))


def test_rollouts_are_for_heads_that_are_entered() -> None:
    place = Place("body", "output", width=8)
    with pytest.raises(UsageError, match="head_batch rollouts is for heads that are entered"):
        attach_blocks(Flat(), place, nn.Identity, replicas=1, head_batch="rollouts")


# Dropout of a fixed rate


@pytest.mark.parametrize("head_batch", ["stacked", "sequential", "rollouts"])
def test_fixed_dropout_falls_on_what_the_head_reads_in_train_mode_only(head_batch: str) -> None:
    torch.manual_seed(0)
    base = Flat().eval()
    hidden, in_eval = base.body(IMAGES).mean((2, 3)), base(IMAGES)
    fixed = attach(base, "head", "fixed-dropout", rate=0.4, head_batch=head_batch).train()
    base.body.eval()
    torch.manual_seed(3)
    logits = fixed(IMAGES)
    torch.manual_seed(3)
    assert torch.equal(logits, base.head.forward(nn.functional.dropout(hidden, 0.4)))
    assert not torch.allclose(logits, in_eval)
    assert (fixed.steps, fixed.state_dict().keys()) == (1, attach(Flat(), "head", "none").state_dict().keys())
    assert torch.equal(fixed.eval()(IMAGES), in_eval)
    detach(fixed)
    base.head.train()
    assert torch.equal(base(IMAGES), in_eval)


@pytest.mark.parametrize("head_batch", ["stacked", "sequential", "rollouts"])
def test_fixed_dropout_falls_on_every_map(head_batch: str) -> None:
    torch.manual_seed(0)
    fixed = attach(Heads(), Heads.sites, "fixed-dropout", rate=0.9, head_batch=head_batch).train()
    states, logits = fixed.hidden_states(IMAGES)
    shares = {name: (state == 0).float().mean().item() for name, state in states.items()}
    assert shares == pytest.approx({"head[high]": 0.9, "head[low]": 0.9}, abs=0.03)
    assert logits.shape == (6, 5)


def test_a_copy_drops_by_its_own_mode() -> None:
    torch.manual_seed(0)
    fixed = attach(Flat(), "head", "fixed-dropout", rate=0.5).eval()
    twin = copy.deepcopy(fixed)
    twin.replicas.train()
    assert torch.equal(fixed(IMAGES), fixed(IMAGES))
    assert not torch.equal(twin(IMAGES), twin(IMAGES))


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_a_rate_that_can_not_be(rate: float) -> None:
    with pytest.raises(UsageError, match=f"rate: {rate} is refused"):
        attach(Flat(), "head", "fixed-dropout", rate=rate)
