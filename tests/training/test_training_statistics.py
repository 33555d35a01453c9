"""What an epoch's episodes looked like, against a slow count."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import torch
from tiny_runs import ONE_PROCESS, SETTINGS, Watcher, tiny_retraining, train
from torch import Tensor

from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.training.loader import Batch
from spgsurgeon.training.statistics import EpisodeStatistics, summarize

LABELS = ("0", "0.2", "0.36", "0.488")
WEIGHTS = (0.4, 0.2, 0.1)


def batches(count: int = 5, size: int = 7) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    return [(torch.randn(4 * size, 3), torch.randint(0, 3, (size,))) for _ in range(count)]


def slow(data: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Walk each picture's episode in plain Python."""
    entropies: list[list[float]] = [[], [], [], []]
    lengths = []
    by_class = [[0] * 4 for _ in range(3)]
    for logits, labels in data:
        for picture, label in enumerate(labels.tolist()):
            length = 0
            for step in range(4):
                row = logits[step * len(labels) + picture].double()
                entropies[step].append(-row.log_softmax(0)[label].item())
                length += 1
                if row.argmax().item() != label:
                    break
            lengths.append(length)
            by_class[label][length - 1] += 1
    ended = Counter(lengths)
    return {
        "step_cross_entropy": [sum(values) / len(values) for values in entropies],
        "valid_share": [len(values) / len(lengths) for values in entropies],
        "mean_episode_length": sum(lengths) / len(lengths),
        "accepted_units": {label: ended[step + 1] for step, label in enumerate(LABELS)},
        "accepted_by_class": by_class,
    }


def add(statistics: EpisodeStatistics, logits: Tensor, labels: Tensor, first: int = 0, **loss: Any) -> None:
    """Add a batch whose pictures are numbered from `first` on."""
    samples = torch.arange(first, first + len(labels))
    statistics.add(spg_loss(logits, labels, **loss), Batch(logits, labels, samples), torch.tensor(False))


def added(data: list[tuple[Tensor, Tensor]], statistics: EpisodeStatistics | None = None) -> EpisodeStatistics:
    statistics = statistics or EpisodeStatistics(4, 3, ONE_PROCESS)
    for logits, labels in data:
        add(statistics, logits, labels, weights=WEIGHTS, form="episode")
    return statistics


def test_it_agrees_with_a_slow_count() -> None:
    data = batches()
    found = summarize(added(data).totals(), LABELS)
    by_hand = slow(data)
    assert found.pop("loss") == pytest.approx(
        sum(spg_loss(*batch, weights=WEIGHTS, form="episode").loss.item() for batch in data) / 5
    )
    for key in ("accepted_units", "accepted_by_class"):
        assert found.pop(key) == by_hand.pop(key)
    for key, value in by_hand.items():
        assert found.pop(key) == pytest.approx(value, rel=1e-6)
    assert not found


def test_it_goes_on_from_what_it_saved() -> None:
    data = batches()
    halfway = added(data[:2]).totals()
    assert added(data[2:], EpisodeStatistics(4, 3, ONE_PROCESS, halfway)).totals() == added(data).totals()


def test_steps_that_nobody_reached() -> None:
    wrong = torch.tensor([[5.0, 0.0], [5.0, 0.0]])
    statistics = EpisodeStatistics(2, 2, ONE_PROCESS)
    add(statistics, wrong, torch.tensor([1]), weights=(0.4,))
    summary = summarize(statistics.totals(), ("0", "0.2"))
    assert summary["valid_share"] == [1.0, 0.0]
    assert summary["step_cross_entropy"][1] is None
    assert summary["accepted_units"] == {"0": 1, "0.2": 0}


def test_plain_retraining_has_episodes_of_one_step() -> None:
    statistics = EpisodeStatistics(1, 2, ONE_PROCESS)
    add(statistics, torch.zeros(3, 2), torch.tensor([0, 1, 1]), weights=())
    summary = summarize(statistics.totals(), ("0",))
    assert (summary["valid_share"], summary["mean_episode_length"]) == ([1.0], 1.0)
    assert summary["accepted_units"] == {"0": 3}


def test_steps_of_the_same_label_are_added_up() -> None:
    totals = added(batches()).totals()
    ended = list(summarize(totals, LABELS)["accepted_units"].values())
    assert summarize(totals, ("27", "27", "36", "36"))["accepted_units"] == {"27": sum(ended[:2]), "36": sum(ended[2:])}


def test_an_epochs_line_counts_each_picture_once() -> None:
    watcher = Watcher()
    train(tiny_retraining(replace(SETTINGS, accumulate=2), progress=watcher))
    for line in watcher.lines:
        assert sum(line["accepted_units"].values()) == 24
        assert list(line["accepted_units"]) == ["0", "0.2", "0.36"]
