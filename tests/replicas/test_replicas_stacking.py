"""Shared heads with batch normalisation and dropout: each step sees itself, and only step 0 is remembered.

Shapes: N = 4 images of 8 x 8, T = 2 replicas, C = 5 classes.
"""

import copy
from functools import partial

import pytest
import torch
from attaching import attach, attach_blocks
from torch import nn

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.replicas.grafted import detach
from spgsurgeon.replicas.places import Place

N, T, WEIGHTS = 4, 2, (0.4, 0.2)
IMAGES = torch.randn(N, 3, 8, 8, generator=torch.Generator().manual_seed(1))
LABELS = torch.randint(0, 5, (N, 8, 8), generator=torch.Generator().manual_seed(2))


def head(width, dropout):
    return nn.Sequential(
        nn.Conv2d(width, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(6, 5, 1)
    )


class TwoHeads(nn.Module):
    """As FCN and DeepLabV3: a head and an auxiliary one, each on a map of its own."""

    places = (Place("classifier", width=8), Place("aux_classifier", width=4))

    def __init__(self, dropout=0.0):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.classifier, self.aux_classifier = head(8, dropout), head(4, dropout)

    def forward(self, images):
        low = self.stem(images).relu()
        return {"out": self.classifier(self.body(low).relu()), "aux": self.aux_classifier(low)}


class ByName(nn.Module):
    """Reads two maps by name."""

    def __init__(self, dropout):
        super().__init__()
        self.low, self.high = nn.Conv2d(4, 5, 1), head(8, dropout)

    def forward(self, maps):
        return self.low(maps["low"]) + self.high(maps["high"])


class OneHeadTwoMaps(nn.Module):
    """As LR-ASPP."""

    places = (Place("classifier", key="low", width=4), Place("classifier", key="high", width=8))

    def __init__(self, dropout=0.0):
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.classifier = ByName(dropout)

    def forward(self, images):
        low = self.stem(images).relu()
        return {"out": self.classifier({"low": low, "high": self.body(low).relu()})}


class NormAfter(nn.Module):
    """As MobileNetV2: convolution and batch norm between the last stage and the pooling."""

    def __init__(self):
        super().__init__()
        self.stage, self.last, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, images):
        return self.fc(self.norm(self.last(self.stage(images).relu())).relu().mean((2, 3)))


def block():
    torch.nn.init.normal_((conv := nn.Conv2d(8, 8, 1)).weight)
    return conv


@pytest.fixture(params=[TwoHeads, OneHeadTwoMaps])
def base(request):
    torch.manual_seed(0)
    return request.param()


def moved(grafted):
    """Let the replicas do something, so that the steps differ."""
    for parameter in grafted.replicas.parameters():
        nn.init.normal_(parameter, std=0.5, generator=torch.Generator().manual_seed(3))
    return grafted.train()


def running(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers()}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("head_batch", ["stacked", "sequential"])
def test_running_statistics_after_a_step_are_those_of_the_bases_own(base, head_batch):
    alone = copy.deepcopy(base).train()
    alone(IMAGES)
    grafted = moved(attach(base, base.places, replicas=T, rate=0.2, head_batch=head_batch))
    spg_loss(grafted(IMAGES), LABELS, WEIGHTS).loss.backward()
    assert_same(running(grafted.base), running(alone))
    assert all(count == 1 for name, count in running(grafted.base).items() if name.endswith("tracked"))


def test_each_step_is_normalised_by_its_own_statistics(base):
    grafted = moved(attach(base, base.places, replicas=T, rate=0.0))
    alone = copy.deepcopy(base.classifier)
    states, output = grafted.hidden_states(IMAGES)
    steps = output.unflatten(0, (T + 1, N))
    for t in range(T + 1):
        names = [place.key for place in base.places if place.module == "classifier"]
        parts = [states[place.name][t] for place in base.places if place.module == "classifier"]
        expected = detached_copy(alone)(parts[0] if names == [None] else dict(zip(names, parts, strict=True)))
        main = steps[t][..., 0] if len(output.shape) == 5 else steps[t]
        torch.testing.assert_close(main, expected, rtol=1e-4, atol=1e-5)


def detached_copy(module):
    fresh = copy.deepcopy(module)
    for part in fresh.modules():
        part._forward_hooks.clear(), part._forward_pre_hooks.clear()
    return fresh


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_sequential_heads_give_the_same_numbers_as_stacked_ones(base, dropout):
    base = type(base)(dropout)
    results = []
    for head_batch in ("stacked", "sequential"):
        grafted = moved(attach(copy.deepcopy(base), base.places, replicas=T, rate=0.2, head_batch=head_batch))
        torch.manual_seed(7)
        result = spg_loss(grafted(IMAGES), LABELS, WEIGHTS)
        result.loss.backward()
        gradients = {name: parameter.grad for name, parameter in grafted.named_parameters()}
        results.append(({"loss": result.loss.detach()}, gradients, running(grafted.base)))
    for stacked, sequential in zip(*results, strict=True):
        assert_same(sequential, stacked)


@pytest.mark.parametrize("head_batch", ["stacked", "sequential"])
def test_dropout_in_a_head_draws_for_one_step_at_a_time(head_batch):
    """On a GPU, a draw for all steps at once would be another one than that for each."""
    rows = []

    class Watched(nn.Dropout):
        def forward(self, hidden):
            rows.append(len(hidden))
            return super().forward(hidden)

    torch.manual_seed(0)
    base = TwoHeads()
    base.classifier[3] = Watched(0.5)
    attach(base, base.places, replicas=T, rate=0.2, head_batch=head_batch).train()(IMAGES)
    assert rows == [N] * (T + 1)


def test_sequential_heads_are_run_again_instead_of_kept():
    torch.manual_seed(0)
    base = TwoHeads()
    calls = []
    base.classifier[0].register_forward_hook(lambda *_: calls.append(torch.is_grad_enabled()))
    grafted = moved(attach(base, base.places, replicas=T, rate=0.0, head_batch="sequential"))
    logits = grafted(IMAGES)
    assert len(calls) == T + 1
    spg_loss(logits, LABELS, WEIGHTS).loss.backward()
    assert len(calls) == 2 * T + 1


@pytest.mark.parametrize("head_batch", ["stacked", "sequential"])
def test_in_eval_mode_it_is_the_base_and_nothing_is_left_after_stripping(base, head_batch):
    expected = base.eval()(IMAGES)
    grafted = attach(base, base.places, replicas=T, rate=0.2, head_batch=head_batch)
    found = grafted.eval()(IMAGES)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    moved(grafted)(IMAGES)
    detach(grafted)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in base.modules())
    assert base.train()(IMAGES)["out"].shape == (N, 5, 8, 8)


@pytest.mark.parametrize("head_batch", ["stacked", "sequential"])
def test_a_forward_that_failed_leaves_nothing_behind(base, head_batch):
    grafted = moved(attach(base, base.places, replicas=T, rate=0.2, head_batch=head_batch))

    def fail(*_):
        raise MemoryError

    norm = next(part for part in base.classifier.modules() if isinstance(part, nn.BatchNorm2d))
    handle = norm.register_forward_hook(fail, prepend=True)
    with pytest.raises(MemoryError):
        grafted(IMAGES)
    handle.remove()
    assert not any(getattr(hook, "_later", ()) for hook in grafted._hooks)
    handle = norm.register_forward_hook(fail, prepend=True)
    with pytest.raises(MemoryError):
        base(IMAGES)  # the base itself, as a notebook may call it
    handle.remove()
    first, second = (grafted.eval()(IMAGES)["out"] for _ in range(2))
    assert first.shape[0] == N
    assert torch.equal(first, second)


def test_a_norm_that_was_replaced_after_grafting_is_noticed():
    base = TwoHeads()
    grafted = nn.SyncBatchNorm.convert_sync_batchnorm(attach(base, base.places, replicas=T, rate=0.2))
    for refused in (grafted.train, lambda: detach(grafted)):
        with pytest.raises(UsageError, match=r"replaced after it was grafted: classifier\.1"):
            refused()


@pytest.mark.parametrize("head_batch", ["stacked", "sequential"])
@pytest.mark.parametrize("make", [nn.ReLU, partial(nn.Dropout, 0.0)])
def test_heads_that_write_into_what_they_read(make, head_batch):
    torch.manual_seed(0)
    base = TwoHeads()
    plain = copy.deepcopy(base)
    results = []
    for model, in_place, mode in ((base, True, head_batch), (plain, False, "stacked")):
        model.classifier.insert(0, make(inplace=in_place))
        grafted = moved(attach(model, model.places, replicas=T, rate=0.0, head_batch=mode))
        spg_loss(grafted(IMAGES), LABELS, WEIGHTS).loss.backward()
        results.append({name: parameter.grad for name, parameter in grafted.named_parameters()})
    assert_same(*results)


def test_a_frozen_base_keeps_its_running_statistics(base):
    grafted = moved(attach(base, base.places, replicas=T, rate=0.2))
    grafted.base.eval()
    before = running(base)
    grafted(IMAGES)
    assert_same(running(base), before)


def test_outputs_of_train_mode_have_episodes_of_their_own():
    torch.manual_seed(0)
    base = TwoHeads()
    logits = moved(attach(base, base.places, replicas=T, rate=0.0))(IMAGES)
    assert logits.shape == ((T + 1) * N, 5, 8, 8, 2)
    episode = spg_loss(logits, LABELS, WEIGHTS).episode
    assert episode.lengths.shape == (N, 8, 8, 2)
    assert not torch.equal(episode.lengths[..., 0], episode.lengths[..., 1])
    changed = logits.detach().clone()
    changed[..., 1] = -changed[..., 1]
    again = spg_loss(changed, LABELS, WEIGHTS).episode
    assert torch.equal(again.lengths[..., 0], episode.lengths[..., 0])


def after_the_stage(base):
    place = Place("stage", "output", width=8, normalisations=("norm",))
    return attach_blocks(base, place, block, replicas=T)


def test_a_batch_norm_after_the_last_stage_remembers_step_0_only():
    torch.manual_seed(0)
    base = NormAfter()
    alone = copy.deepcopy(base).train()
    expected = alone(IMAGES)
    grafted = after_the_stage(base).train()
    logits = grafted(IMAGES)
    assert logits.shape == ((T + 1) * N, 5)
    torch.testing.assert_close(logits[:N], expected)
    assert not torch.equal(logits[N : 2 * N], expected)
    assert_same(running(base), running(alone))


def test_a_copy_has_hooks_of_its_own(base):
    grafted = moved(attach(base, base.places, replicas=T, rate=0.0))
    twin = copy.deepcopy(grafted)
    for parameter in twin.replicas.parameters():
        nn.init.zeros_(parameter)
    mine, theirs = grafted(IMAGES), twin(IMAGES)
    torch.testing.assert_close(mine[:N], theirs[:N])
    assert not torch.allclose(mine[N:], theirs[N:])
    detach(twin)
    assert grafted(IMAGES).shape[0] == (T + 1) * N


@pytest.mark.slow
@pytest.mark.parametrize("make", [TwoHeads, OneHeadTwoMaps, NormAfter])
def test_it_compiles_to_one_graph(make):
    torch.manual_seed(0)
    base = make()
    grafted = after_the_stage(base) if make is NormAfter else moved(attach(base, base.places, replicas=T, rate=0.0))
    grafted.train()
    twin, labels = copy.deepcopy(grafted), LABELS if make is not NormAfter else torch.arange(N)

    def step(model, images, labels):
        return spg_loss(model(images), labels, WEIGHTS).loss

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    for _ in range(3):
        assert compiled(grafted, IMAGES, labels).item() == pytest.approx(step(twin, IMAGES, labels).item(), rel=1e-5)
    assert_same(running(grafted.base), running(twin.base))


def test_sequential_is_refused_where_no_head_is_entered():
    place = Place("stage", "output", width=8)
    with pytest.raises(UsageError, match="heads that are entered"):
        attach_blocks(NormAfter(), place, block, replicas=1, head_batch="sequential")
    with pytest.raises(UsageError, match="stacked or sequential"):
        attach(TwoHeads(), TwoHeads.places, head_batch="parallel", replicas=1, rate=0.1)


def test_a_head_of_several_layers_must_say_the_width_of_its_map():
    with pytest.raises(UsageError, match="before a Linear") as caught:
        attach(TwoHeads(), "classifier", replicas=1, rate=0.1)
    assert "width=D" in caught.value.hint
