"""Language modelling: the next token of a text, or the tokens of it that were masked.

The logits of all tokens are too many to exist at once, so their head is read in chunks (`objective.read_hidden`).
Shapes: N blocks of L tokens, R resamples; hidden states [N, L, D], labels int64 [N, L], -100 for what is not predicted.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import pad

from spgsurgeon.data import CORPUS, MaskedTokenTransform, NextTokenTransform, batches_padded, blocks_of, text_padding
from spgsurgeon.errors import UsageError
from spgsurgeon.objective import DeferredLogits, Readout, read_hidden, shift_labels
from spgsurgeon.runtime import Processes, sum_dtype
from spgsurgeon.tasks.metrics import LOSS, Metric
from spgsurgeon.tasks.task import Scores, Task
from spgsurgeon.tasks.token_classification import TOKEN_ACCURACY

PERPLEXITY = Metric("perplexity", "perplexity", higher_is_better=False, percent=False, hub_name="perplexity")
SCORED_PROBABILITY = 0.15
"""How likely a token is to be masked when a model is scored, however it was trained: scores can be compared so."""


class TokenTally:
    """Counts perplexity (exp of the mean cross entropy of a token), token_accuracy (percent), loss and samples."""

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._sums = torch.zeros(3, dtype=sum_dtype(processes.device), device=processes.device)
        self._samples = 0

    def add(self, logits: DeferredLogits, target: Tensor) -> None:
        """Count a batch."""
        self._sums += token_counts(logits, target).sum(0)
        self._samples += len(target)

    def scores(self) -> Scores:
        """Return the scores over all processes. Raises UsageError if there is not one token to score."""
        sums = self._processes.sum(self._sums).cpu().numpy()
        samples = self._processes.sum(torch.tensor(self._samples, device=self._processes.device)).item()
        if not sums[2]:
            raise UsageError(
                f"not one of the {samples} samples has a token to predict"
                if samples
                else "there is not one sample to evaluate on"
            )
        return {
            PERPLEXITY.name: float(perplexity(sums)),
            TOKEN_ACCURACY.name: float(100 * sums[1] / sums[2]),
            LOSS.name: float(sums[0] / sums[2]),
            "samples": samples,
        }

    def confusions(self) -> None:
        """See `Tally`: tokens have no classes."""

    def drawn(self) -> None:
        """See `Tally`: nor are they drawn."""


def token_counts(logits: DeferredLogits, target: Tensor) -> Tensor:
    """Return the sum of the cross entropies, the tokens that are right, and those that count, of each sample [N, 3]."""
    read = read_hidden(*logits, target, 1)
    right = read.correct[0] & read.counted
    parts = (read.cross_entropy[0], right, read.counted)
    return torch.stack([part.sum(1, dtype=sum_dtype(target.device)) for part in parts], dim=1)


def perplexity(counts: NDArray[Any]) -> NDArray[np.float64]:
    """Return exp of the mean cross entropy, infinity if that is beyond all numbers."""
    with np.errstate(over="ignore"):
        found: NDArray[np.float64] = np.exp(counts[..., 0] / counts[..., 2])
    return found


def read_tokens(logits: DeferredLogits, targets: Tensor, steps: int, label_smoothing: float) -> Readout:
    """Return the readout of hidden states of so many steps; see `read_hidden`."""
    return read_hidden(*logits, targets, steps, label_smoothing=label_smoothing)


_LANGUAGE = partial(
    Task,
    unit="token",
    samples=CORPUS,
    source="corpus",
    made="blocks of texts",
    size=lambda preprocessing: {"max_length": preprocessing.max_length},
    metrics=(PERPLEXITY, TOKEN_ACCURACY, LOSS),
    tally=TokenTally,
    counts=token_counts,
    from_counts=perplexity,
    collation=lambda preprocessing: batches_padded(text_padding(preprocessing)),
    readout=lambda logits: logits.movedim(-1, 1),
    deferred=True,
    read=read_tokens,
    episode_classes=torch.zeros_like,
)
"""What both have in common."""

CAUSAL_LM = _LANGUAGE(
    name="causal-lm",
    predicts="the next token of a text",
    arranged=partial(blocks_of, framed=False),
    targets_of_labels=shift_labels,
    labels_of_targets=lambda targets: pad(targets[..., :-1], (1, 0), value=-100),
    training_transform=lambda preprocessing, augmentation: NextTokenTransform(preprocessing),
    evaluation_transform=NextTokenTransform,
    pipeline_tag="text-generation",
)
MASKED_LM = _LANGUAGE(
    name="masked-lm",
    predicts="the masked tokens of a text",
    arranged=partial(blocks_of, framed=True),
    training_transform=lambda preprocessing, augmentation: MaskedTokenTransform(
        preprocessing, preprocessing.mlm_probability
    ),
    evaluation_transform=lambda preprocessing: MaskedTokenTransform(preprocessing, SCORED_PROBABILITY),
    pipeline_tag="fill-mask",
)
