"""Losses that bear wrong labels in a run: what a step takes, what a head start and a resumed run know of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import DIGITS, TINY, spgsurgeon, succeed
from pretended_cuda import PROCESSES, PretendedCUDA, needs_cuda_build
from tiny_runs import (
    SETTINGS,
    WEIGHTS,
    CrashError,
    changed,
    crash_at,
    images_with,
    metrics_of,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)
from torch import Tensor
from torch.nn.functional import cross_entropy

from spgsurgeon.data import Batch
from spgsurgeon.recipe.schema import ColdStartSection, ObjectiveSection
from spgsurgeon.recipe.start_sections import HeadStartSection
from spgsurgeon.runs.reading import read_run
from spgsurgeon.training.statistics import EpisodeStatistics

SMALL, GCE = {"small_loss": 0.5}, {"gce": 0.7}
LOSSES: dict[str, tuple[int, dict[str, Any]]] = {
    "gce": (0, GCE),
    "small-loss": (0, SMALL),
    "both": (0, GCE | SMALL),
    "episodes over gce": (2, GCE),
}


def settings_of(name: str) -> Any:
    replicas, losses = LOSSES[name]
    return changed(SETTINGS, precision="float32", objective=ObjectiveSection(weights=WEIGHTS[:replicas], **losses))


def grafted_of(name: str, seed: int = 0) -> Any:
    return tiny_grafted(seed, replicas=LOSSES[name][0])


def batch_of(size: int = 8) -> Batch:
    torch.manual_seed(5)
    return images_with(torch.randint(4, (size,)), torch.rand(size, 3, 8, 8))


@pytest.mark.parametrize("name", ["gce", "small-loss", "both"])
def test_a_step_takes_the_loss_that_the_recipe_says(name: str) -> None:
    batch = batch_of()
    retraining = tiny_retraining(settings_of(name), grafted=grafted_of(name))
    passes: list[Tensor] = []
    retraining.grafted.base.register_forward_hook(lambda _, __, logits: passes.append(logits))
    result = retraining.try_batch(batch)
    (logits,) = passes
    each = cross_entropy(logits, batch.targets, reduction="none")
    losses = LOSSES[name][1]
    loss = each if "gce" not in losses else (1 - (-each).exp() ** 0.7) / 0.7
    expected = loss.sort().values[:4].mean() if "small_loss" in losses else loss.mean()
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(result.step_losses[0], each.mean())


def test_a_head_start_is_the_same_for_all_losses() -> None:
    found = {}
    for name in ("gce", "small-loss", "both"):
        settings = changed(settings_of(name), head_start=HeadStartSection(epochs=1, freeze="nothing"))
        retraining = tiny_retraining(settings, grafted=grafted_of(name))
        stepper: Any = retraining._stepper
        stepper.plain = True
        found[name] = stepper.forward(batch_of())[0].loss.item()
        stepper.plain = False
        assert stepper.forward(batch_of())[0].loss.item() != found[name]
    assert len(set(found.values())) == 1


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("step", [7, 14])
def test_a_run_that_crashed_resumes_exactly(name: str, step: int, tmp_path: Path) -> None:
    settings = changed(settings_of(name), cold_start=ColdStartSection(epochs=1))
    whole = train(tiny_retraining(settings, path=tmp_path / "whole", grafted=grafted_of(name)))
    with pytest.raises(CrashError):
        train(tiny_retraining(settings, path=tmp_path / "run", grafted=grafted_of(name), progress=crash_at(step)))
    again = tiny_retraining(settings, path=tmp_path / "run", grafted=grafted_of(name, seed=9))
    assert weights_hash(train(again, resume=True)) == weights_hash(whole)
    assert metrics_of(tmp_path / "run") == metrics_of(tmp_path / "whole")
    plain = changed(settings, objective=ObjectiveSection(weights=settings.objective.weights))
    assert weights_hash(train(tiny_retraining(plain, grafted=grafted_of(name)))) != weights_hash(whole)


@needs_cuda_build
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("name", LOSSES)
def test_a_step_on_cuda_waits_for_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = PretendedCUDA(monkeypatch)
    grafted = cuda.place(grafted_of(name))
    with cuda:
        retraining = tiny_retraining(
            changed(settings_of(name), precision="bfloat16"), grafted=grafted, processes=PROCESSES
        )
        statistics = EpisodeStatistics(grafted.steps, 4, PROCESSES)
        parts = [images_with(torch.arange(4), torch.rand(4, 3, 8, 8))]
        grafted.train()
        for _ in range(2):
            cuda.waits.clear()
            retraining.take_step(parts, statistics)
        assert cuda.waits == []


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["objective.small_loss=0.5"], "objective.small_loss: "),
        (["objective.small_loss=0"], "objective.small_loss: "),
        (["objective.gce=1.1"], "objective.gce: "),
        (["objective.gce=0.7", "objective.label_smoothing=0.1"], "objective.gce: "),
        (["trp.kind=none", "objective.small_loss=0.5", "objective.r_drop=1"], "objective.small_loss: "),
        (["objective.gce=0.7", "data.augment.mixup=0.2"], "objective.gce needs labels"),
    ],
)
def test_what_does_not_go_together_is_refused(overrides: list[str], said: str, tmp_path: Path) -> None:
    refused = spgsurgeon("train", *TINY, *DIGITS, *overrides, "-o", tmp_path / "run", "--json")
    assert refused.code == 2
    assert said in refused.document["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_a_report_says_which_loss_it_was(tmp_path: Path) -> None:
    few = ("data.limit=4", "data.eval_limit=20", "training.batch_size=20", "data.workers=0")
    found = {}
    for name, overrides in {
        "gce": ("trp.kind=none", "objective.gce=0.7", "objective.small_loss=0.5"),
        "spg": ("objective.gce=0.5",),
        "plain": ("trp.kind=none", "objective.label_smoothing=0.1"),
    }.items():
        succeed("train", *TINY, *DIGITS, *few, *overrides, "-o", tmp_path / name)
        found[name] = read_run(tmp_path / name, name, 0).head["objective"]
    assert found == {
        "gce": "generalized cross entropy of q 0.7, of the 0.5 of each batch with the smallest",
        "spg": "step, weights 0.4, 0.2, 0.1, generalized cross entropy of q 0.5",
        "plain": "cross entropy, label smoothing 0.1",
    }
