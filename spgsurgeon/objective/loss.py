"""The Sequential Policy Gradient loss (arXiv 2506.15051, eq. 9-13) and the forms in which it is minimised.

Shapes: N images, C classes, T replicas; m = number of counted units; `units` = [N] for images, [N, H, W] for maps,
[N, K] for images where the model gives K outputs (auxiliary heads), [N, L] for tokens.
The action is always the label (teacher forcing), so -log pi_t[c] is the cross entropy CE_t of replica t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.objective.episode import Episode, Weights, play_episodes, shape_of, weighted_sum, weights_of_steps
from spgsurgeon.objective.logits import logits_in
from spgsurgeon.objective.readout import Readout, read_logits
from spgsurgeon.objective.robust import generalized, smallest

MeanOverRanks = Callable[[Tensor], Tensor]

_LEAST_COUNT = 1e-9  # far below one unit on one of all ranks


class SPGLoss(NamedTuple):
    """What `spg_loss` gives: the scalar to call backward on, and what it was made of."""

    loss: Tensor
    """float32 []: differentiable."""
    step_losses: Tensor
    """float32 [T+1]: mean CE_t over the counted units still valid at t, 0 if there is none; differentiable."""
    step_sizes: Tensor
    """float32 [T+1]: how many counted units are still valid at t, the denominators (over ranks: the mean)."""
    episode: Episode
    """The episodes; constants to autograd."""
    cross_entropy: Tensor
    """float32 [T+1, units]: CE_t of each unit as its readout has it, 0 if not counted; constant to autograd."""
    predicted: Tensor | None = None
    """int64 [units]: the class that step 0 predicts; None if units are not read by classes."""


class _Batch(NamedTuple):
    """What every form reads. A unit counts as much as its class weighs, 1 without weights.

    Denominators are sums of that, over ranks their mean.
    """

    episode: Episode
    entropy: Tensor  # float32 [T+1, units], weighed, what gce makes of it; 0 for units not valid or not counted
    step_weights: Tensor  # float32 [T+1]: what the units weigh that are valid and counted; [0] is m
    step_means: Tensor  # float32 [T+1]: their mean cross entropy


def _episode(batch: _Batch, weights: Sequence[float]) -> Tensor:
    """1/m sum_i R_i sum_t M_ti CE_ti: eq. 11 without its length factor, as in the authors' released search code."""
    log_probability = batch.entropy.sum(0)
    return _ratio((batch.episode.returns * log_probability).sum(), batch.step_weights[0])


def _episode_mean(batch: _Batch, weights: Sequence[float]) -> Tensor:
    """1/m sum_i R_i / length_i sum_t M_ti CE_ti: eq. 11 to the letter."""
    log_probability = batch.entropy.sum(0)
    scaled = batch.episode.returns / batch.episode.lengths * log_probability
    return _ratio(scaled.sum(), batch.step_weights[0])


def _step(batch: _Batch, weights: Sequence[float]) -> Tensor:
    """sum_t lambda_t mean(CE_t over the units still valid at t): the authors' released dropout code."""
    return weighted_sum(batch.step_means, weights)


FORMS: dict[str, Callable[[_Batch, Sequence[float]], Tensor]] = {
    "episode": _episode,
    "episode-mean": _episode_mean,
    "step": _step,
}


def spg_loss(
    logits: Any,
    target: Tensor,
    weights: Weights = (0.4, 0.2, 0.1),
    form: str = "step",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    loss_normalization: bool = False,
    mean_over_ranks: MeanOverRanks | None = None,
    *,
    class_dim: int | None = None,
    soft: bool = False,
    class_weights: Tensor | None = None,
    gce: float = 0.0,
    small_loss: float = 1.0,
) -> SPGLoss:
    """Return the loss of a batch whose T+1 steps are stacked step-major in `logits`, and its episodes.

    `logits` is [(T+1)*N, C, ...] as a grafted model in train mode gives it, or an object with such `logits`; T =
    `len(weights)` (none: plain cross entropy). The steps of a mesh are its cells: `weights` are those of its axes
    then, as ((0.4, 0.2), (0.4, 0.2)) of nine cells, and a cell has their product. `target` is [N, ...] of class
    indices. With `soft`, it is soft labels [N, C, ...] whose arg-max is the label that episodes go by. Where the logits
    have dimensions at their end that the target lacks, as [(T+1)*N, C, K] of a model with K outputs in train mode, the
    target counts for each unit along them, and each has an episode of its own. `class_dim` is for logits with the
    classes elsewhere: -1 for tokens [(T+1)*N, L, C]. It must be given when the shapes can be read both ways.

    `form` is one of `FORMS`. Units whose target is `ignore_index` enter no sum; a batch without any counted unit gives
    zero, with a graph. `label_smoothing` enters the cross entropy only. `loss_normalization` multiplies by
    exp(mean CE_0 - loss), a constant to autograd. `class_weights`, float [C], say how much a unit counts by its class:
    a weight of 2 is a unit that is there twice, in sums and in what they are divided by, so that without replicas the
    loss is torch's cross entropy with such weights. Episodes do not go by them.

    `gce` is the q, up to 1, of generalized cross entropy, (1 - p^q) / q in the place of -log p; 0 is cross entropy.
    `small_loss` is the share of the units that a loss without replicas is of, those with the smallest; 1 is all. What
    comes back beside the loss is of cross entropy and of all units.

    `mean_over_ranks` averages a tensor over data-parallel processes. With it, averaging the gradients over processes
    (as DistributedDataParallel does) gives the gradient of one process on the joined batch, also where denominators
    depend on the data; without it each process normalises by its own counts.

    Arithmetic is float32 (float64 stays float64) whatever the autocast type; nothing in here waits for the device.
    Raises UsageError for an unknown form, for shapes that don't fit or fit twice, for floating-point targets without
    `soft`, for `gce` with soft or smoothed labels, and for `small_loss` with replicas.
    """
    _check_form(form)
    if gce and (soft or label_smoothing):
        raise UsageError(
            "gce is of the probability of one label, and labels are soft or smoothed",
            hint="leave gce at 0, or soft and label_smoothing out",
            code="gce-needs-labels",
        )
    readout = read_logits(
        logits_in(logits),
        target,
        prod(shape_of(weights)),
        class_dim=class_dim,
        soft=soft,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        class_weights=class_weights,
    )
    return loss_of_readout(readout, weights, form, loss_normalization, mean_over_ranks, gce=gce, small_loss=small_loss)


def loss_of_readout(
    readout: Readout,
    weights: Weights = (0.4, 0.2, 0.1),
    form: str = "step",
    loss_normalization: bool = False,
    mean_over_ranks: MeanOverRanks | None = None,
    *,
    gce: float = 0.0,
    small_loss: float = 1.0,
) -> SPGLoss:
    """Return the loss of a batch that was read already, as spans or in chunks, and its episodes; see `spg_loss`."""
    _check_form(form)
    lambdas = weights_of_steps(weights)
    if len(readout.cross_entropy) != len(lambdas):
        raise UsageError(
            f"{len(lambdas) - 1} weights for {len(readout.cross_entropy)} steps: each step after the first needs one",
            code="unfit-rows",
        )
    with torch.autocast(readout.cross_entropy.device.type, enabled=False):
        episode = play_episodes(readout.correct, readout.counted, weights)
        step_sizes, entropy, step_losses = _sums(readout, episode, None, mean_over_ranks)
        batch = _Batch(episode, entropy, step_sizes, step_losses)
        learned = _learned(readout, gce, small_loss)
        if learned is not readout or readout.weight is not None:
            step_weights, entropy, step_means = _sums(learned, episode, learned.weight, mean_over_ranks)
            batch = _Batch(episode, entropy, step_weights, step_means)
        loss = FORMS[form](batch, lambdas)
        if loss_normalization:
            gap = (batch.step_means[0] - loss).detach()
            loss = loss * (mean_over_ranks(gap) if mean_over_ranks else gap).exp()
    return SPGLoss(loss, step_losses, step_sizes, episode, readout.cross_entropy.detach(), readout.predicted)


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r}; there are {', '.join(FORMS)}", hint=did_you_mean(form, FORMS))


def _learned(readout: Readout, gce: float, small_loss: float) -> Readout:
    """Return what the loss is made of: `readout` itself if that is the cross entropy of all units."""
    if small_loss < 1:
        readout = smallest(readout, small_loss)
    return readout._replace(cross_entropy=generalized(readout.cross_entropy, gce)) if gce else readout


def _sums(
    readout: Readout, episode: Episode, weight: Tensor | None, mean_over_ranks: MeanOverRanks | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the valid units that count weigh at each step, [T+1], their cross entropy, and its mean, [T+1]."""
    counted = episode.valid_mask & readout.counted
    weighed = counted if weight is None else counted * weight
    sizes = weighed.flatten(1).sum(1, dtype=torch.float32)
    if mean_over_ranks is not None:
        sizes = mean_over_ranks(sizes)
    entropy = readout.cross_entropy * weighed
    return sizes, entropy, _ratio(entropy.flatten(1).sum(1), sizes)


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count, and 0 if count is 0 (total is 0 there too). A count over ranks may be a fraction."""
    return total / count.clamp(min=_LEAST_COUNT)
