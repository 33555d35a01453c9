"""The fast objective against a slow walker that follows the paper's equations one episode at a time."""

import itertools
import math

import pytest
import torch
from slow_walker import slow_objective, walk
from torch.nn.functional import cross_entropy

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.episode import play_episodes, valid_mask
from spgsurgeon.objective.loss import FORMS, spg_loss

WEIGHTS = (0.4, 0.2, 0.1)


def slow_loss(logits, labels, weights, form, smoothing=0.0, ignore_index=-100, soft=None):
    """`logits` [T+1, m, C], `labels` [m]; plain Python over units and steps, in float64."""

    def unit(i):
        target = labels[i : i + 1] if soft is None else soft[i : i + 1]
        rows = [logits[t, i : i + 1].double() for t in range(len(weights) + 1)]
        entropies = [cross_entropy(row, target, label_smoothing=smoothing).item() for row in rows]
        return [(entropy, row.argmax() == labels[i]) for entropy, row in zip(entropies, rows, strict=True)]

    counted = [i for i in range(labels.shape[0]) if labels[i] != ignore_index]
    return slow_objective([unit(i) for i in counted], weights, form)


def random_batch(seed, units=(37,), classes=5, weights=WEIGHTS):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, units, generator=generator)
    logits = torch.randn(len(weights) + 1, units[0], classes, *units[1:], generator=generator)
    logits.scatter_add_(2, labels[None, :, None].expand(len(weights) + 1, -1, -1, *units[1:]), torch.ones_like(logits))
    return logits.flatten(0, 1), labels


@pytest.mark.parametrize("steps", [1, 2, 4, 6])
def test_the_mask_is_the_reward_for_every_pattern(steps):
    patterns = torch.tensor(list(itertools.product([True, False], repeat=steps))).T
    mask = valid_mask(patterns)
    for i in range(patterns.shape[1]):
        assert mask[:, i].int().tolist() == walk(patterns[:, i])


def test_episode_gives_weighted_returns_and_lengths():
    correct = torch.tensor([[1, 1, 0], [1, 0, 1], [1, 1, 1], [0, 1, 1]], dtype=torch.bool)
    episode = play_episodes(correct, torch.ones(3, dtype=torch.bool), WEIGHTS)
    assert episode.lengths.tolist() == [4, 2, 1]
    assert episode.returns.tolist() == pytest.approx([1.7, 1.4, 1.0])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("weights", [WEIGHTS, (0.5,), ()])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_every_form_agrees_with_the_slow_walker(form, weights, smoothing):
    logits, labels = random_batch(0, weights=weights)
    labels[::7] = -100
    fast = spg_loss(logits, labels, weights, form, label_smoothing=smoothing)
    slow = slow_loss(logits.unflatten(0, (len(weights) + 1, -1)), labels, weights, form, smoothing)
    assert fast.loss.item() == pytest.approx(slow, rel=1e-5)
    assert 1 < fast.episode.lengths.float().mean() < 4 or not weights


@pytest.mark.parametrize("form", FORMS)
def test_soft_targets_go_by_their_arg_max(form):
    logits, labels = random_batch(1)
    soft = 0.7 * torch.nn.functional.one_hot(labels, 5).float() + 0.3 * torch.full((37, 5), 0.2)
    fast = spg_loss(logits, soft, WEIGHTS, form, label_smoothing=0.1, soft=True)
    slow = slow_loss(logits.unflatten(0, (4, -1)), labels, WEIGHTS, form, 0.1, soft=soft.double())
    assert fast.loss.item() == pytest.approx(slow, rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_maps_are_units_like_any_other(form):
    logits, labels = random_batch(2, units=(3, 4, 5))
    labels[0, 1] = -100
    as_map = spg_loss(logits, labels, WEIGHTS, form)
    flat = logits.unflatten(0, (4, 3)).movedim(2, -1).reshape(4 * 60, 5)
    as_list = spg_loss(flat, labels.flatten(), WEIGHTS, form)
    assert as_map.loss.item() == pytest.approx(as_list.loss.item(), rel=1e-6)
    assert as_map.episode.valid_mask.shape == (4, 3, 4, 5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("soft", [False, True])
def test_a_target_counts_for_every_output_of_a_model_that_has_several(form, soft):
    (first, labels), (second, _) = random_batch(2), random_batch(12)
    labels[::7] = labels[::7] if soft else -100
    target = torch.nn.functional.one_hot(labels, 5).float() * 0.9 + 0.02 if soft else labels
    stacked = spg_loss(torch.stack([first, second], dim=-1), target, WEIGHTS, form, soft=soft)
    logits = torch.cat([first.unflatten(0, (4, -1)), second.unflatten(0, (4, -1))], dim=1).flatten(0, 1)
    as_list = spg_loss(logits, target.repeat(2, *[1] * (target.dim() - 1)), WEIGHTS, form, soft=soft)
    assert stacked.loss.item() == pytest.approx(as_list.loss.item(), rel=1e-6)
    assert stacked.episode.valid_mask.shape == (4, 37, 2)
    assert torch.equal(stacked.episode.lengths.T.flatten(), as_list.episode.lengths)


@pytest.mark.parametrize("form", FORMS)
def test_without_replicas_it_is_plain_cross_entropy(form):
    logits, labels = random_batch(3, weights=())
    assert spg_loss(logits, labels, (), form).loss.item() == pytest.approx(cross_entropy(logits, labels).item())


@pytest.mark.parametrize("form", FORMS)
def test_the_gradient_is_only_that_of_the_log_probability(form):
    logits, labels = random_batch(4)
    logits = logits.double().requires_grad_()
    result = spg_loss(logits, labels, WEIGHTS, form)
    (gradient,) = torch.autograd.grad(result.loss, logits)
    by_unit = gradient.unflatten(0, (4, -1)).abs().sum(-1) > 0
    assert torch.equal(by_unit, result.episode.valid_mask)
    assert not result.episode.returns.requires_grad
    step = 1e-6 * torch.randn(logits.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    difference = (
        spg_loss(logits + step, labels, WEIGHTS, form).loss - spg_loss(logits - step, labels, WEIGHTS, form).loss
    )
    assert difference.item() == pytest.approx(2 * (gradient * step).sum().item(), rel=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_without_counted_units_gives_zero_with_a_graph(form):
    logits, labels = random_batch(5)
    logits.requires_grad_()
    result = spg_loss(logits, torch.full_like(labels, -100), WEIGHTS, form, loss_normalization=True)
    result.loss.backward()
    assert result.loss.item() == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_step_nobody_reaches_contributes_nothing():
    logits = torch.zeros(4 * 6, 3)
    logits[:, 0] = 1.0
    result = spg_loss(logits, torch.ones(6, dtype=torch.long), WEIGHTS, "step")
    assert result.loss.item() == pytest.approx(cross_entropy(logits[:6], torch.ones(6, dtype=torch.long)).item())
    assert result.step_losses[1:].tolist() == [0, 0, 0]


def test_loss_normalization_scales_by_a_constant():
    logits, labels = random_batch(6)
    logits.requires_grad_()
    plain = spg_loss(logits, labels, WEIGHTS, "episode")
    (plain_gradient,) = torch.autograd.grad(plain.loss, logits)
    scaled = spg_loss(logits, labels, WEIGHTS, "episode", loss_normalization=True)
    (scaled_gradient,) = torch.autograd.grad(scaled.loss, logits)
    factor = math.exp(plain.step_losses[0].item() - plain.loss.item())
    assert scaled.loss.item() == pytest.approx(factor * plain.loss.item(), rel=1e-5)
    torch.testing.assert_close(scaled_gradient, factor * plain_gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_arithmetic_is_float32_under_autocast_too(dtype):
    logits, labels = random_batch(7)
    logits = (10 * logits).to(dtype)
    expected = spg_loss(logits.float(), labels).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = spg_loss(logits, labels)
    assert result.loss.dtype == torch.float32
    assert result.loss.item() == expected.item()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalization", [False, True])
def test_ranks_agree_with_one_process_on_the_joined_batch(form, normalization):
    """Two processes whose counts differ, simulated: the mean of their losses is the loss of the joined batch."""
    logits, labels = random_batch(8, units=(40,))
    labels[:15] = -100
    options = {"weights": WEIGHTS, "form": form, "loss_normalization": normalization}
    whole = spg_loss(logits, labels, **options)
    parts = [
        (logits.unflatten(0, (4, 40))[:, rows].flatten(0, 1), labels[rows]) for rows in (slice(0, 20), slice(20, 40))
    ]
    # What an all-reduce would return, gathered beforehand: first the counts, then the gap that normalisation needs.
    local_sizes: list[torch.Tensor] = []
    for part in parts:
        spg_loss(*part, **options, mean_over_ranks=lambda t: local_sizes.append(t) or t)
    sizes = [t for t in local_sizes if t.dim() == 1]
    gap = torch.stack([whole.step_losses[0] - spg_loss(logits, labels, WEIGHTS, form).loss]).mean()
    means = [
        spg_loss(*part, **options, mean_over_ranks=lambda t: (sizes[0] + sizes[1]) / 2 if t.dim() else gap).loss
        for part in parts
    ]
    assert (means[0] + means[1]).item() / 2 == pytest.approx(whole.loss.item(), rel=1e-5)


def test_wrong_shapes_and_forms_are_refused():
    with pytest.raises(UsageError, match="expected 4 x 5"):
        spg_loss(torch.zeros(5, 3), torch.zeros(5, dtype=torch.long))
    with pytest.raises(UsageError, match="episode-mean") as error:
        spg_loss(torch.zeros(20, 3), torch.zeros(5, dtype=torch.long), form="episodes")
    assert "episode" in error.value.hint


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("form", FORMS)
def test_nothing_waits_for_the_device(form):
    logits, labels = random_batch(9)
    logits, labels = logits.cuda().requires_grad_(), labels.cuda()
    spg_loss(logits, labels, form=form).loss.backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        spg_loss(logits, labels, form=form, loss_normalization=True).loss.backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
