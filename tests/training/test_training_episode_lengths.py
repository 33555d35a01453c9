"""How long each sample's episode was: against a slow walk, over processes, and of runs that were stopped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_runs import ONE_PROCESS, SETTINGS, CrashError, changed, crash_at, tiny_grafted, tiny_retraining, train
from torch import Tensor

from spgsurgeon.checkpoint.refusals import MalformedError
from spgsurgeon.data.loading.samples import Batch
from spgsurgeon.errors import UsageError
from spgsurgeon.objective.loss import spg_loss
from spgsurgeon.recipe.training_section import CheckpointSection
from spgsurgeon.runs import read_episodes
from spgsurgeon.training.epoch.lengths import LengthsBySample
from spgsurgeon.training.statistics import EpisodeStatistics, check_totals

SAMPLES, STEPS = 20, 4
RECORDED = changed(SETTINGS, record_episodes=True)


def batch(samples: list[int]) -> tuple[Tensor, Batch]:
    """Return the logits of all steps for these samples, of three classes, and the batch."""
    torch.manual_seed(samples[0])
    labels = torch.randint(0, 3, (len(samples),))
    return torch.randn(STEPS * len(samples), 3), Batch({}, labels, torch.tensor(samples))


def walked(logits: Tensor, given: Batch) -> dict[int, int]:
    """Walk the episode of each sample."""
    lengths = {}
    for row, (sample, label) in enumerate(zip(given.samples.tolist(), given.targets.tolist(), strict=True)):
        lengths[sample] = 1
        while lengths[sample] < STEPS:
            if logits[(lengths[sample] - 1) * len(given.samples) + row].argmax() != label:
                break
            lengths[sample] += 1
    return lengths


def add(statistics: EpisodeStatistics, logits: Tensor, given: Batch, *, skipped: bool = False) -> None:
    statistics.add(spg_loss(logits, given.targets), given, torch.tensor(skipped))


def test_lengths_are_those_of_a_walk_and_go_on_from_what_was_saved() -> None:
    parts = [batch([3, 0, 7, 19]), batch([5, 1, 2]), batch([11, 12])]
    expected = [0] * SAMPLES
    for logits, given in parts[:2]:
        for sample, length in walked(logits, given).items():
            expected[sample] = length
    first = EpisodeStatistics(STEPS, 3, ONE_PROCESS, recorded=SAMPLES)
    add(first, *parts[0])
    second = EpisodeStatistics(STEPS, 3, ONE_PROCESS, first.totals(), recorded=SAMPLES)
    add(second, *parts[1])
    add(second, *parts[2], skipped=True)
    assert second.totals()["lengths"] == [expected]
    assert len(set(expected)) > 2


def test_nothing_is_remembered_unasked() -> None:
    statistics = EpisodeStatistics(STEPS, 3, ONE_PROCESS)
    add(statistics, *batch([3, 0]))
    assert "lengths" not in statistics.totals()


class TwoProcesses:
    """As `Processes`: the other one has seen samples 2 and 3."""

    device, leads = torch.device("cpu"), True

    def gather(self, tensor: Tensor) -> list[Tensor]:
        return [tensor, torch.tensor([0, 0, 4, 1], dtype=torch.int32)]


def test_each_process_has_seen_a_part_and_of_several_episodes_the_longest_counts() -> None:
    lengths = LengthsBySample(4, TwoProcesses(), [2, 0, 0, 0])  # type: ignore[arg-type]
    lengths.add(torch.tensor([3, 1, 1]), torch.tensor([2, 3, 1]), torch.tensor([True, True, True]))
    lengths.add(torch.tensor([0]), torch.tensor([4]), torch.tensor([False]))
    assert lengths.total() == [2, 3, 4, 2]


def test_samples_with_several_labels_have_no_episode_of_their_own() -> None:
    statistics = EpisodeStatistics(2, 3, ONE_PROCESS, recorded=5)
    labels = torch.zeros(2, 4, dtype=torch.long)
    result = spg_loss(torch.randn(4, 3, 4), labels, (0.4,))
    with pytest.raises(UsageError, match="samples with one label each") as caught:
        statistics.add(result, Batch({}, labels, torch.arange(2)), torch.tensor(False))
    assert caught.value.code == "no-episode-a-sample"


@pytest.mark.parametrize("lengths", [[[1] * 3], [[9] * SAMPLES]])
def test_saved_lengths_of_another_run_are_refused(lengths: Any) -> None:
    totals = EpisodeStatistics(STEPS, 3, ONE_PROCESS, recorded=SAMPLES).totals() | {"lengths": lengths}
    with pytest.raises(MalformedError, match="lengths are not of 20 samples and 4 steps"):
        check_totals(totals, STEPS, 3, SAMPLES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    train(tiny_retraining(RECORDED, path=path))
    return path


def test_a_run_records_each_epoch_once_beside_its_metrics(whole: Path) -> None:
    found = read_episodes(whole)
    assert (found.names[:2], list(found.labels[:5])) == (["noise 0", "noise 1"], [0, 1, 2, 3, 0])
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert list(found.epochs) == [line["epoch"] for line in lines] == [1, 2]
    for line, lengths in zip(lines, found.epochs.values(), strict=True):
        assert [lengths.count(length) for length in (1, 2, 3)] == list(line["accepted_units"].values())
        assert "episode_lengths" not in line


@pytest.mark.parametrize("step", [1, 4, 6, 8, 12])
def test_a_run_that_crashed_and_resumes_records_the_same(whole: Path, tmp_path: Path, step: int) -> None:
    path, settings = tmp_path / "run", changed(RECORDED, checkpoints=CheckpointSection(steps=2))
    with pytest.raises(CrashError):
        train(tiny_retraining(settings, path=path, progress=crash_at(step)))
    with (path / "episodes.jsonl").open("a") as file:
        file.write('{"epoch": 1, "phase": "tr')  # what a kill may leave
    train(tiny_retraining(settings, path=path, grafted=tiny_grafted(seed=99)), resume=True)
    assert (path / "episodes.jsonl").read_bytes() == (whole / "episodes.jsonl").read_bytes()


def test_a_control_has_no_episodes_to_record(tmp_path: Path) -> None:
    train(tiny_retraining(RECORDED, path=tmp_path / "run", grafted=tiny_grafted(replicas=0)))
    with pytest.raises(UsageError, match="no record of each sample's episodes") as caught:
        read_episodes(tmp_path / "run")
    assert caught.value.code == "no-episodes"
