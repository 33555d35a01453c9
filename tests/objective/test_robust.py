"""Losses that bear wrong labels, against slow references: generalized cross entropy and the smallest losses."""

import pytest
import torch
from slow_walker import slow_objective
from torch.nn.functional import cross_entropy, l1_loss, one_hot

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.chunked_readout import read_hidden
from spgsurgeon.objective.loss import FORMS, loss_of_readout, spg_loss
from spgsurgeon.objective.readout import Readout
from spgsurgeon.objective.robust import generalized, smallest

WEIGHTS = (0.4, 0.2, 0.1)


def drawn(seed, rows=20, classes=5, units=(), double=True):
    torch.manual_seed(seed)
    logits = 2 * torch.randn(rows, classes, *units, dtype=torch.float64 if double else torch.float32)
    return logits, torch.randint(classes, (rows, *units))


def likely(logits, labels):
    """Return the probability of each label, in plain Python."""
    return [row.softmax(0)[label].item() for row, label in zip(logits, labels.tolist(), strict=True)]


@pytest.mark.parametrize("q", [0.1, 0.7, 1.0])
def test_it_is_its_definition_and_its_gradient_that_of_the_paper(q):
    logits, labels = drawn(0)
    logits.requires_grad_()
    loss = spg_loss(logits, labels, (), gce=q).loss
    p = likely(logits.detach(), labels)
    assert loss.item() == pytest.approx(sum((1 - one**q) / q for one in p) / len(p))
    (found,) = torch.autograd.grad(loss, logits)
    (plain,) = torch.autograd.grad(cross_entropy(logits, labels, reduction="sum"), logits)
    torch.testing.assert_close(found, plain * torch.tensor(p, dtype=torch.float64)[:, None] ** q / len(p))


def test_near_q_0_it_is_cross_entropy_and_at_1_half_the_mean_absolute_error():
    logits, labels = drawn(1)
    logits.requires_grad_()
    for weights in ((), (0.4,)):
        targets = labels[: len(logits) // (len(weights) + 1)]
        (near,) = torch.autograd.grad(spg_loss(logits, targets, weights, gce=1e-7).loss, logits)
        (at,) = torch.autograd.grad(spg_loss(logits, targets, weights).loss, logits)
        torch.testing.assert_close(near, at, rtol=1e-5, atol=1e-9)
    absolute = l1_loss(logits.softmax(1), one_hot(labels, 5).double(), reduction="sum") / len(labels)
    assert spg_loss(logits, labels, (), gce=1.0).loss.item() == pytest.approx(absolute.item() / 2)


@pytest.mark.parametrize("form", FORMS)
def test_episodes_over_it_agree_with_the_slow_walker(form):
    logits, _ = drawn(2, rows=4 * 30)
    labels = torch.randint(5, (30,))
    labels[logits[:30].argmax(1) % 2 == 0] = logits[:30].argmax(1)[logits[:30].argmax(1) % 2 == 0]
    labels[::7] = -100
    found = spg_loss(logits, labels, WEIGHTS, form, gce=0.7)
    units = []
    for i in (labels >= 0).nonzero().flatten().tolist():
        rows = logits.unflatten(0, (4, -1))[:, i]
        p = rows.softmax(1)[:, labels[i]]
        units.append(
            [
                ((1 - one**0.7) / 0.7, right)
                for one, right in zip(p.tolist(), (rows.argmax(1) == labels[i]).tolist(), strict=True)
            ]
        )
    assert found.loss.item() == pytest.approx(slow_objective(units, WEIGHTS, form))
    plain = spg_loss(logits, labels, WEIGHTS, form)
    assert torch.equal(found.episode.returns, plain.episode.returns)
    assert torch.equal(found.step_losses, plain.step_losses)  # which are of cross entropy
    assert torch.equal(found.cross_entropy, plain.cross_entropy)
    assert found.loss < plain.loss


def test_class_weights_and_the_scaling_of_the_loss_are_of_the_same_loss():
    logits, labels = drawn(3)
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    p, each = torch.tensor(likely(logits, labels)), weights[labels]
    expected = (each * (1 - p**0.7) / 0.7).sum() / each.sum()
    assert spg_loss(logits, labels, (), gce=0.7, class_weights=weights).loss.item() == pytest.approx(expected.item())
    scaled = spg_loss(logits, labels, (), gce=0.7, loss_normalization=True).loss
    assert scaled.item() == pytest.approx(spg_loss(logits, labels, (), gce=0.7).loss.item())


def test_units_that_are_impossible_teach_nothing_and_break_nothing():
    logits = torch.tensor([[-1e4, 1e4], [0.0, 0.0]], requires_grad=True)
    loss = spg_loss(logits, torch.tensor([0, 0]), (), gce=0.5).loss
    loss.backward()
    assert loss.item() == pytest.approx((2 + 2 * (1 - 0.5**0.5)) / 2)
    assert logits.grad[0].tolist() == [0, 0]
    assert (logits.grad[1] != 0).all()


def test_logits_that_are_made_in_chunks_give_the_same():
    logits, labels = drawn(4, units=(3,), double=False)
    hidden = logits.movedim(1, -1).contiguous()
    readout = read_hidden(hidden, lambda states: states, labels, 1, chunk=7)
    for settings in ({"gce": 0.7}, {"small_loss": 0.6}, {"gce": 0.7, "small_loss": 0.6}):
        torch.testing.assert_close(
            loss_of_readout(readout, (), **settings).loss, spg_loss(logits, labels, (), **settings).loss
        )


@pytest.mark.parametrize("units", [(), (4,), (2, 3)])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.7, 0.99])
def test_the_smallest_losses_are_kept_and_divided_by_how_many_they_are(share, units):
    logits, labels = drawn(5, units=units)
    labels[::6] = -100
    logits.requires_grad_()
    each = cross_entropy(logits, labels, reduction="none")
    ordered = each[labels != -100].sort().values
    kept = max(1, int(share * len(ordered) + 1e-9))
    result = spg_loss(logits, labels, (), small_loss=share)
    assert result.loss.item() == pytest.approx(ordered[:kept].mean().item())
    assert result.step_losses[0].item() == pytest.approx(ordered.mean().item(), rel=1e-6)  # of all
    (gradient,) = torch.autograd.grad(result.loss, logits)
    (expected,) = torch.autograd.grad(ordered[:kept].mean(), logits)
    torch.testing.assert_close(gradient, expected)


def test_how_many_are_kept_is_rounded_down_but_for_float_rounding():
    entropy = torch.arange(1.0, 101.0)[None]
    readout = Readout(entropy, torch.ones_like(entropy, dtype=torch.bool), torch.ones(100, dtype=torch.bool))
    for percent in range(1, 100):
        weight = smallest(readout, percent / 100).weight
        assert weight is not None
        assert weight.tolist() == [1.0] * percent + [0.0] * (100 - percent)
    few = Readout(*(each[..., :3] for each in readout[:3]))
    assert smallest(few, 0.66).weight.tolist() == [1, 0, 0]
    assert smallest(few, 0.1).weight.tolist() == [1, 0, 0]


def test_weights_of_classes_count_among_what_is_kept_and_do_not_choose():
    logits, labels = drawn(6)
    weights = torch.tensor([1.0, 2.0, 0.5, 1.0, 3.0])
    each = cross_entropy(logits, labels, reduction="none")
    chosen = each.argsort()[:10]
    expected = cross_entropy(logits[chosen], labels[chosen], weight=weights.double())
    assert spg_loss(logits, labels, (), small_loss=0.5, class_weights=weights).loss.item() == pytest.approx(
        expected.item()
    )


def test_nothing_counted_is_zero_with_a_graph_and_ranks_share_their_counts():
    logits, labels = drawn(7)
    logits.requires_grad_()
    for settings in ({"gce": 0.7}, {"small_loss": 0.5}):
        nothing = spg_loss(logits, torch.full_like(labels, -100), (), **settings).loss
        nothing.backward()
        assert nothing.item() == 0
        whole = spg_loss(logits, labels, (), **settings).loss
        twice = spg_loss(logits, labels, (), mean_over_ranks=lambda count: count * 2, **settings).loss
        assert twice.item() == pytest.approx(whole.item() / 2)


def test_all_of_a_batch_is_the_plain_loss_to_the_last_bit():
    logits, labels = drawn(8)
    assert spg_loss(logits, labels, (), small_loss=1.0, gce=0.0).loss == spg_loss(logits, labels, ()).loss


def test_what_has_no_label_or_more_than_one_step_is_refused():
    logits, labels = drawn(9)
    for given, settings in ((one_hot(labels, 5).double(), {"soft": True}), (labels, {"label_smoothing": 0.1})):
        with pytest.raises(UsageError) as caught:
            spg_loss(logits, given, (), gce=0.5, **settings)
        assert caught.value.code == "gce-needs-labels"
    with pytest.raises(UsageError) as caught:
        spg_loss(logits, labels[:10], (0.4,), small_loss=0.5)
    assert caught.value.code == "small-loss-needs-control"


def test_the_transform_alone_takes_any_shape():
    entropy = torch.rand(2, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(generalized(entropy, 0.3), (1 - (-entropy).exp() ** 0.3) / 0.3)
