"""A unit's weight is how often it is there: in every form, over processes, of soft labels, and in torch's own loss."""

from __future__ import annotations

import pytest
import torch
from test_objective import WEIGHTS, random_batch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import FORMS, SPGLoss, spg_loss

TIMES = torch.tensor([1, 3, 2, 1, 4])


def repeated(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return a batch with each unit as often as its class weighs."""
    times = TIMES[labels.clamp(min=0)]
    steps = len(logits) // len(labels)
    return logits.unflatten(0, (steps, -1)).repeat_interleave(times, 1).flatten(0, 1), labels.repeat_interleave(times)


def weighed(logits: Tensor, labels: Tensor, **options: object) -> SPGLoss:
    return spg_loss(logits, labels, class_weights=TIMES.float(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("normalization", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_weight_is_how_often_a_unit_is_there(form: str, normalization: bool, smoothing: float) -> None:
    logits, labels = random_batch(3)
    labels[::6] = -100
    options = {"form": form, "loss_normalization": normalization, "label_smoothing": smoothing}
    logits.requires_grad_()
    found, expected = weighed(logits, labels, **options), spg_loss(*repeated(logits, labels), **options)
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=1e-5)
    one, other = (torch.autograd.grad(loss, logits)[0] for loss in (found.loss, expected.loss))
    torch.testing.assert_close(one, other)


def test_episodes_and_what_is_told_of_steps_do_not_go_by_weights() -> None:
    logits, labels = random_batch(4)
    found, plain = weighed(logits, labels), spg_loss(logits, labels)
    assert torch.equal(found.episode.lengths, plain.episode.lengths)
    assert torch.equal(found.step_losses, plain.step_losses)
    assert torch.equal(found.step_sizes, plain.step_sizes)
    assert found.loss.item() != plain.loss.item()


def test_without_replicas_it_is_torchs_cross_entropy() -> None:
    logits, labels = random_batch(5, weights=())
    expected = cross_entropy(logits, labels, weight=TIMES.float())
    assert weighed(logits, labels, weights=()).loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_one_change_no_bit(form: str) -> None:
    logits, labels = random_batch(6)
    found = spg_loss(logits, labels, form=form, class_weights=torch.ones(5))
    assert torch.equal(found.loss, spg_loss(logits, labels, form=form).loss)


@pytest.mark.parametrize("form", FORMS)
def test_soft_labels_weigh_what_their_classes_do_on_average(form: str) -> None:
    logits, labels = random_batch(7)
    soft = one_hot(labels, 5).float()
    found = weighed(logits, soft, form=form, soft=True).loss.item()
    assert found == pytest.approx(weighed(logits, labels, form=form).loss.item(), rel=1e-5)


@pytest.mark.parametrize("form", FORMS)
def test_processes_agree_with_one_on_the_joined_batch(form: str) -> None:
    logits, labels = random_batch(8, units=(40,))
    labels[:15] = -100
    whole = weighed(logits, labels, form=form)
    parts = [
        (logits.unflatten(0, (4, 40))[:, rows].flatten(0, 1), labels[rows]) for rows in (slice(0, 20), slice(20, 40))
    ]
    seen: list[list[Tensor]] = [[], []]
    for own, part in zip(seen, parts, strict=True):
        weighed(*part, form=form, mean_over_ranks=lambda t, own=own: own.append(t) or t)
    means = [torch.stack(both).mean(0) for both in zip(*seen, strict=True)]
    losses = []
    for part in parts:
        answers = iter(means)
        losses.append(weighed(*part, form=form, mean_over_ranks=lambda _, answers=answers: next(answers)).loss)
    assert torch.stack(losses).mean().item() == pytest.approx(whole.loss.item(), rel=1e-5)


def test_maps_and_wrong_numbers_of_weights() -> None:
    logits, labels = random_batch(9, units=(6, 4, 3))
    flat = logits.movedim(1, -1).flatten(0, -2), labels.flatten()
    assert weighed(logits, labels, weights=WEIGHTS).loss.item() == pytest.approx(
        weighed(*flat, weights=WEIGHTS).loss.item(), rel=1e-5
    )
    with pytest.raises(UsageError) as caught:
        spg_loss(*random_batch(1), class_weights=torch.ones(4))
    assert caught.value.code == "unfit-class-weights"
