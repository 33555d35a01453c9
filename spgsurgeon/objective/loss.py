"""The Sequential Policy Gradient loss (arXiv 2506.15051, eq. 9-13) and the forms in which it is minimised.

Shapes: N images, C classes, T replicas; m = number of counted units; `units` = [N] for images, [N, H, W] for maps,
[N, K] for images where the model gives K outputs (auxiliary heads), [N, L] for tokens.
The action is always the label (teacher forcing), so -log pi_t[c] is the cross entropy CE_t of replica t.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from spgsurgeon.errors import UsageError, did_you_mean
from spgsurgeon.objective.episode import Episode, play_episodes, weighted_sum
from spgsurgeon.objective.readout import Readout, read_logits

MeanOverRanks = Callable[[Tensor], Tensor]

_LEAST_COUNT = 1e-9  # far below one unit on one of all ranks


class SPGLoss(NamedTuple):
    """What `spg_loss` gives: the scalar to call backward on, and what it was made of."""

    loss: Tensor
    """float32 []: differentiable."""
    step_losses: Tensor
    """float32 [T+1]: mean CE_t over the counted units still valid at t, 0 where there is none; differentiable."""
    step_sizes: Tensor
    """float32 [T+1]: how many counted units are still valid at t, the denominators (over ranks: the mean)."""
    episode: Episode
    """The episodes; constants to autograd."""
    cross_entropy: Tensor
    """float32 [T+1, units]: CE_t of each unit as its readout has it, 0 if not counted; constant to autograd."""


class _Batch(NamedTuple):
    """What every form reads. Denominators are counts that may be fractions: means over ranks."""

    cross_entropy: Tensor  # float32 [T+1, units], 0 for units that are not counted
    episode: Episode
    valid_entropy: Tensor  # float32 [T+1, units], 0 for units that are not valid or not counted
    step_sizes: Tensor  # float32 [T+1]: how many units are valid and counted; [0] is m
    step_losses: Tensor  # float32 [T+1]


def _episode(batch: _Batch, weights: Sequence[float]) -> Tensor:
    """1/m sum_i R_i sum_t M_ti CE_ti: eq. 11 without its length factor, as in the authors' released search code."""
    log_probability = batch.valid_entropy.sum(0)
    return _ratio((batch.episode.returns * log_probability).sum(), batch.step_sizes[0])


def _episode_mean(batch: _Batch, weights: Sequence[float]) -> Tensor:
    """1/m sum_i R_i / length_i sum_t M_ti CE_ti: eq. 11 to the letter."""
    log_probability = batch.valid_entropy.sum(0)
    scaled = batch.episode.returns / batch.episode.lengths * log_probability
    return _ratio(scaled.sum(), batch.step_sizes[0])


def _step(batch: _Batch, weights: Sequence[float]) -> Tensor:
    """sum_t lambda_t mean(CE_t over the units still valid at t): the authors' released dropout code."""
    return weighted_sum(batch.step_losses, weights)


FORMS: dict[str, Callable[[_Batch, Sequence[float]], Tensor]] = {
    "episode": _episode,
    "episode-mean": _episode_mean,
    "step": _step,
}


def spg_loss(
    logits: Tensor,
    target: Tensor,
    weights: Sequence[float] = (0.4, 0.2, 0.1),
    form: str = "step",
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    loss_normalization: bool = False,
    mean_over_ranks: MeanOverRanks | None = None,
    *,
    class_dim: int | None = None,
    soft: bool = False,
) -> SPGLoss:
    """Return the loss of a batch whose T+1 steps are stacked step-major in `logits`, and its episodes.

    `logits` is [(T+1)*N, C, ...] as a grafted model in train mode gives it, T = `len(weights)` (none: plain cross
    entropy); `target` is [N, ...] of class indices. With `soft`, it is soft labels [N, C, ...] whose arg-max is the
    label that episodes go by. Where the logits have dimensions at their end that the target lacks, as [(T+1)*N, C, K]
    of a model with K outputs in train mode, the target counts for each unit along them, and each has an episode of its
    own. `class_dim` is for logits with the classes elsewhere: -1 for tokens [(T+1)*N, L, C]. It must be given when the
    shapes can be read both ways.

    `form` is one of `FORMS`. Units whose target is `ignore_index` enter no sum; a batch without any counted unit gives
    zero, with a graph. `label_smoothing` enters the cross entropy only. `loss_normalization` multiplies by
    exp(mean CE_0 - loss), a constant to autograd.

    `mean_over_ranks` averages a tensor over data-parallel processes. With it, averaging the gradients over processes
    (as DistributedDataParallel does) gives the gradient of one process on the joined batch, also where denominators
    depend on the data; without it each process normalises by its own counts.

    Arithmetic is float32 (float64 stays float64) whatever the autocast type; nothing in here waits for the device.
    Raises UsageError for an unknown form, for shapes that don't fit or fit twice, and for floating-point targets
    without `soft`.
    """
    _check_form(form)
    readout = read_logits(
        logits,
        target,
        len(weights) + 1,
        class_dim=class_dim,
        soft=soft,
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
    )
    return loss_of_readout(readout, weights, form, loss_normalization, mean_over_ranks)


def loss_of_readout(
    readout: Readout,
    weights: Sequence[float] = (0.4, 0.2, 0.1),
    form: str = "step",
    loss_normalization: bool = False,
    mean_over_ranks: MeanOverRanks | None = None,
) -> SPGLoss:
    """Return the loss of a batch that was read already, as spans or in chunks, and its episodes; see `spg_loss`."""
    _check_form(form)
    if len(readout.cross_entropy) != len(weights) + 1:
        raise UsageError(
            f"{len(weights)} weights for {len(readout.cross_entropy)} steps: each step after the first needs one",
            code="unfit-rows",
        )
    with torch.autocast(readout.cross_entropy.device.type, enabled=False):
        batch = _play(readout, weights, mean_over_ranks)
        loss = FORMS[form](batch, weights)
        if loss_normalization:
            gap = (batch.step_losses[0] - loss).detach()
            loss = loss * (mean_over_ranks(gap) if mean_over_ranks else gap).exp()
    return SPGLoss(loss, batch.step_losses, batch.step_sizes, batch.episode, batch.cross_entropy.detach())


def _check_form(form: str) -> None:
    if form not in FORMS:
        raise UsageError(f"unknown form {form!r}; there are {', '.join(FORMS)}", hint=did_you_mean(form, FORMS))


def _play(readout: Readout, weights: Sequence[float], mean_over_ranks: MeanOverRanks | None) -> _Batch:
    episode = play_episodes(readout.correct, readout.counted, weights)
    steps_counted = episode.valid_mask & readout.counted
    step_sizes = steps_counted.flatten(1).sum(1, dtype=torch.float32)
    if mean_over_ranks is not None:
        step_sizes = mean_over_ranks(step_sizes)
    valid_entropy = readout.cross_entropy * steps_counted
    step_losses = _ratio(valid_entropy.flatten(1).sum(1), step_sizes)
    return _Batch(readout.cross_entropy, episode, valid_entropy, step_sizes, step_losses)


def _ratio(total: Tensor, count: Tensor) -> Tensor:
    """Return total / count, and 0 where count is 0 (total is 0 there too). A count over ranks may be a fraction."""
    return total / count.clamp(min=_LEAST_COUNT)
