"""What an epoch's episodes looked like, against a slow count."""

from collections import Counter
from typing import Any

import pytest
import torch
from tiny_runs import ONE_PROCESS, SETTINGS, Noise, Watcher, changed, tiny_retraining, train
from torch import Tensor

from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.training.statistics import EXTREMES, EpisodeStatistics, check_totals, extremes, summarize

LABELS = ("0", "0.2", "0.36", "0.488")
WEIGHTS = (0.4, 0.2, 0.1)


def batches(count: int = 5, size: int = 7) -> list[tuple[Tensor, Tensor]]:
    torch.manual_seed(3)
    return [(torch.randn(4 * size, 3), torch.randint(0, 3, (size,))) for _ in range(count)]


def slow(data: list[tuple[Tensor, Tensor]]) -> dict[str, Any]:
    """Walk each image's episode in plain Python."""
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
    """Add a batch whose images are numbered from `first` on."""
    samples = torch.arange(first, first + len(labels))
    statistics.add(spg_loss(logits, labels, **loss), Batch({}, labels, samples), torch.tensor(False))


def added(
    data: list[tuple[Tensor, Tensor]], statistics: EpisodeStatistics | None = None, first: int = 0
) -> EpisodeStatistics:
    statistics = statistics or EpisodeStatistics(4, 3, ONE_PROCESS)
    for number, (logits, labels) in enumerate(data, first):
        add(statistics, logits, labels, number * len(labels), weights=WEIGHTS, form="episode")
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
    assert added(data[2:], EpisodeStatistics(4, 3, ONE_PROCESS, halfway), 2).totals() == added(data).totals()


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
    train(tiny_retraining(changed(SETTINGS, accumulate=2), progress=watcher))
    for line in watcher.lines:
        assert sum(line["accepted_units"].values()) == 24
        assert list(line["accepted_units"]) == ["0", "0.2", "0.36"]


# Images


def slow_extremes(data: list[tuple[Tensor, Tensor]], count: int) -> dict[str, list[tuple[int, int, int]]]:
    """Return sample, label and length of the images with the shortest and the longest episodes."""
    found: list[tuple[float, int, int, int]] = []
    for logits, labels in data:
        for picture, label in enumerate(labels.tolist()):
            rows = logits[picture :: len(labels)].double()
            wrong = [step for step, row in enumerate(rows) if row.argmax().item() != label]
            length = min([*wrong, 3]) + 1
            sureness = 1 / (1 - rows[0].log_softmax(0)[label].item())
            found.append((length + sureness, len(found), label, length))
    found.sort()
    return {
        "shortest": [one[1:] for one in found[:count]],
        "longest": [one[1:] for one in reversed(found[-count:])],
    }


def pictures_of(statistics: EpisodeStatistics) -> dict[str, list[tuple[int, int, int]]]:
    found = extremes(statistics.totals(), Noise(100))
    assert all(one["name"] == f"noise {one['sample']}" for rows in found.values() for one in rows)
    return {name: [(one["sample"], one["label"], one["length"]) for one in rows] for name, rows in found.items()}


@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_shortest_and_the_longest_episodes(count: int) -> None:
    data = batches(count)
    assert pictures_of(added(data)) == slow_extremes(data, EXTREMES)


@pytest.mark.parametrize("most", [1, 10, 2**14])
def test_it_does_not_matter_what_is_counted_together(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where many images are equally sure: those that come first in their source are named."""
    monkeypatch.setattr("spgsurgeon.training.statistics._MOST_WAITING", most)
    data = [(torch.zeros(28, 3) + torch.tensor([9.0, 0, 0]), labels) for _, labels in batches(9)]
    totals = added(data).totals()
    assert sum(map(sum, totals["by_class"])) == 63
    samples = {name: [row[1] for row in totals[name]] for name in ("shortest", "longest")}
    right = [float(sample) for sample, label in enumerate(label for _, labels in data for label in labels) if not label]
    assert samples["longest"] == right[:EXTREMES]
    assert totals == added(data[4:], EpisodeStatistics(4, 3, ONE_PROCESS, added(data[:4]).totals()), 4).totals()


def test_of_few_pictures_all_are_named_once() -> None:
    found = pictures_of(added(batches(1)))
    assert sorted(found["shortest"]) == sorted(found["longest"])
    assert len(found["shortest"]) == 7


def test_a_skipped_batch_counts_nowhere() -> None:
    statistics = added(batches(2))
    before = statistics.totals()
    logits, labels = batches(1)[0]
    batch = Batch({}, labels, torch.arange(50, 57))
    statistics.add(spg_loss(logits * float("nan"), labels, weights=WEIGHTS), batch, torch.tensor(True))
    assert statistics.totals() == before


def test_soft_targets_and_further_outputs() -> None:
    """A mixed image is of the class that it is most of; of two outputs, the first one's episode is the image's."""
    torch.manual_seed(1)
    hard, samples = torch.tensor([0, 2, 1, 1]), torch.arange(4)
    logits = torch.randn(8, 3, 2)
    soft = torch.nn.functional.one_hot(hard, 3) * 0.7 + 0.1
    found = []
    for target, given in ((soft, logits), (hard, logits), (hard, logits[..., 0])):
        statistics = EpisodeStatistics(2, 3, ONE_PROCESS)
        result = spg_loss(given, target, weights=(0.4,), soft=target is soft)
        statistics.add(result, Batch({}, target, samples), torch.tensor(False))
        found.append(statistics)
    of_soft, of_two, of_one = (statistics.totals() for statistics in found)
    assert of_soft["by_class"] == of_two["by_class"]
    assert sum(map(sum, of_two["by_class"])) == 8
    assert of_two["shortest"] == of_one["shortest"]


def test_a_mixed_image_is_remembered_by_its_own_label() -> None:
    """Its episode is of the label that it is most of, which may be its neighbour's."""
    torch.manual_seed(1)
    own, mixed, samples = torch.tensor([0, 2, 1, 1]), torch.tensor([1, 1, 2, 0]), torch.arange(4)
    soft = torch.nn.functional.one_hot(mixed, 3) * 0.7 + 0.1
    statistics = EpisodeStatistics(2, 3, ONE_PROCESS)
    result = spg_loss(torch.randn(8, 3), soft, weights=(0.4,), soft=True)
    statistics.add(result, Batch({}, soft, samples), torch.tensor(False), own)
    totals = statistics.totals()
    assert [sum(row) for row in totals["by_class"]] == [1, 2, 1]
    remembered = extremes(totals, Noise(4))["longest"]
    assert {picture["sample"]: picture["label"] for picture in remembered} == {0: 0, 1: 2, 2: 1, 3: 1}


def test_what_was_predicted_is_remembered_and_an_earlier_versions_rows_have_none() -> None:
    logits, labels = batches(1)[0]
    statistics = EpisodeStatistics(4, 3, ONE_PROCESS)
    result = spg_loss(logits, labels, weights=WEIGHTS)._replace(predicted=logits[:7].argmax(1))
    statistics.add(result, Batch({}, labels, torch.arange(7)), torch.tensor(False))
    totals = statistics.totals()
    predicted = {one["sample"]: one["predicted"] for one in extremes(totals, Noise(7))["shortest"]}
    assert predicted == dict(enumerate(logits[:7].argmax(1).tolist()))
    earlier = totals | {name: [row[:5] for row in totals[name]] for name in ("shortest", "longest")}
    check_totals(earlier, 4, 3, 7)
    resumed = EpisodeStatistics(4, 3, ONE_PROCESS, earlier).totals()
    assert {one["predicted"] for one in extremes(resumed, Noise(7))["shortest"]} == {None}


def test_a_run_records_what_its_base_predicts() -> None:
    watcher = Watcher()
    train(tiny_retraining(SETTINGS, progress=watcher))
    for line in watcher.lines:
        for picture in line["pictures"]["shortest"]:
            assert (picture["predicted"] == picture["label"]) == (picture["length"] > 1)


def test_plain_retraining_has_no_extremes() -> None:
    statistics = EpisodeStatistics(1, 2, ONE_PROCESS)
    add(statistics, torch.zeros(3, 2), torch.tensor([0, 1, 1]), weights=())
    assert extremes(statistics.totals(), Noise(3)) == {"shortest": [], "longest": []}
