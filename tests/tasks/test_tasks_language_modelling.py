"""Scores of language models by hand: over tokens, whatever blocks they are in, and lower is better."""

import math

import numpy as np
import pytest
import torch
from tiny_runs import ONE_PROCESS
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.comparing.scores import Scored, against_plain
from spgsurgeon.objective.chunked_readout import DeferredLogits
from spgsurgeon.tasks.language_modelling import CAUSAL_LM, MASKED_LM, TokenTally, perplexity, token_counts
from spgsurgeon.tasks.registry import task_named, task_of, task_scored_by

TASKS = (CAUSAL_LM, MASKED_LM)


def deferred(hidden: Tensor) -> DeferredLogits:
    return DeferredLogits(hidden, lambda states: 2 * states)


def batches() -> list[tuple[Tensor, Tensor]]:
    """Return logits of two batches, and targets of which different numbers count."""
    torch.manual_seed(0)
    drawn = [(torch.randn(3, 6, 9), torch.randint(9, (3, 6))), (torch.randn(1, 4, 9), torch.randint(9, (1, 4)))]
    drawn[0][1][0, 2:] = drawn[0][1][1] = -100
    return drawn


def test_scores_are_over_all_tokens() -> None:
    tally = TokenTally(ONE_PROCESS)
    for hidden, target in batches():
        tally.add(deferred(hidden), target)
    logits = torch.cat([2 * hidden.flatten(0, 1) for hidden, _ in batches()])
    targets = torch.cat([target.flatten() for _, target in batches()])
    loss = cross_entropy(logits, targets).item()
    right = (logits.argmax(1) == targets)[targets != -100].double().mean().item()
    expected = {"perplexity": math.exp(loss), "token_accuracy": 100 * right, "loss": loss, "samples": 4}
    assert tally.scores() == pytest.approx(expected)
    counts = torch.cat([token_counts(deferred(hidden), target) for hidden, target in batches()])
    assert counts[:, 2].tolist() == [2, 0, 6, 4]
    assert perplexity(counts.numpy().sum(0)) == pytest.approx(expected["perplexity"])


def test_a_loss_beyond_all_numbers_is_an_infinite_perplexity() -> None:
    assert perplexity(np.array([[2000.0, 0.0, 2.0], [0.0, 2.0, 2.0]])).tolist() == [math.inf, 1.0]


def test_they_are_found_by_their_scores_and_their_names() -> None:
    scores = {"perplexity": 20.0, "token_accuracy": 40.0, "loss": 3.0, "samples": 7}
    assert task_of(scores) is task_scored_by("perplexity") is CAUSAL_LM
    assert task_named("masked-lm") is MASKED_LM
    assert task_of({"token_accuracy": 40.0, "macro_f1": 30.0, "loss": 1.0}) is task_named("token-classification")
    for task in TASKS:
        assert (task.primary.higher_is_better, task.primary.percent, task.has_classes) == (False, False, False)


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_lower_perplexity_is_a_gain_over_the_blocks_as_well(task) -> None:
    def scored(*losses: float) -> Scored:
        counts = np.array([[loss * 10, 3.0, 10.0] for loss in losses])
        return Scored({"perplexity": float(np.exp(np.mean(losses))), "samples": len(losses)}, counts)

    plain, arm = scored(0.5, 0.6, 0.7, 0.4), scored(0.3, 0.4, 0.5, 0.2)
    assert against_plain([plain], [arm], task)["verdict"] == "gain"
    assert against_plain([arm], [plain], task)["verdict"] == "loss"
