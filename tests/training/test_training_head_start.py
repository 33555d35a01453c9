"""Plain epochs before the episodes begin: what learns in them, when they end, and that a run counts them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from command_line import spgsurgeon, succeed
from tiny_runs import (
    EVERYTHING,
    SETTINGS,
    CrashError,
    Watcher,
    changed,
    crash_at,
    metrics_of,
    scores_of,
    signal_at,
    tiny_grafted,
    tiny_retraining,
    train,
    weights_hash,
)

from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.errors import RecipeError
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.recipe.schema import ObjectiveSection
from spgsurgeon.recipe.start_sections import HeadStartSection
from spgsurgeon.recipe.training_section import OptimizerSection
from spgsurgeon.replicas.grafted import GraftedModel
from spgsurgeon.runtime.signals import InterruptedRunError

TWO = HeadStartSection(epochs=2)


class AtHeadEpochs(Watcher):
    """Keeps the state of a model after each epoch of a head start."""

    def __init__(self, grafted: GraftedModel) -> None:
        super().__init__()
        self.grafted, self.states = grafted, [self.state(grafted)]

    @staticmethod
    def state(grafted: GraftedModel) -> dict[str, torch.Tensor]:
        return {key: value.clone() for key, value in grafted.state_dict().items()}

    def epoch(self, metrics: dict[str, Any]) -> None:
        super().epoch(metrics)
        if metrics["phase"] == "head":
            self.states.append(self.state(self.grafted))

    @property
    def moved(self) -> set[str]:
        before, after = self.states[0], self.states[-1]
        return {key for key in before if not torch.equal(before[key], after[key])}


def head_started(rule: HeadStartSection, *, replicas: int = 2, **changes: Any) -> AtHeadEpochs:
    grafted = tiny_grafted(replicas=replicas)
    watcher = AtHeadEpochs(grafted)
    objective = ObjectiveSection(weights=(0.4, 0.2)[:replicas])
    settings = changed(SETTINGS, head_start=rule, epochs=1, objective=objective, **changes)
    train(tiny_retraining(settings, grafted=grafted, progress=watcher))
    return watcher


def test_the_head_alone_learns() -> None:
    assert head_started(TWO).moved == {"base.head.weight", "base.head.bias"}


def test_or_the_whole_base_and_no_replica() -> None:
    watcher = head_started(changed(TWO, freeze="nothing"))
    assert watcher.moved == {key for key in watcher.states[0] if key.startswith("base.")}


def test_it_is_plain_and_the_same_for_a_control() -> None:
    """So arms that share a seed start their episodes, or none, from one model."""
    for freeze in ("body", "nothing"):
        with_replicas, control = (head_started(changed(TWO, freeze=freeze), replicas=replicas) for replicas in (2, 0))
        bases = [
            {key: value for key, value in watcher.states[-1].items() if key.startswith("base.")}
            for watcher in (with_replicas, control)
        ]
        assert content_hash(bases[0]) == content_hash(bases[1])
        assert [line["valid_share"] for line in with_replicas.lines[:2]] == [[1.0], [1.0]]


def test_then_everything_learns() -> None:
    grafted = tiny_grafted()
    before = AtHeadEpochs.state(grafted)
    train(tiny_retraining(changed(SETTINGS, head_start=TWO), grafted=grafted))
    assert not any(torch.equal(value, before[key]) for key, value in grafted.state_dict().items())


def test_frozen_parts_stay_frozen_in_it_and_after_it() -> None:
    grafted = tiny_grafted()
    before = AtHeadEpochs.state(grafted)
    settings = changed(SETTINGS, head_start=changed(TWO, freeze="nothing"), freeze=("body.0",))
    train(tiny_retraining(settings, grafted=grafted))
    assert {key for key, value in grafted.state_dict().items() if torch.equal(value, before[key])} == {
        "base.body.0.weight",
        "base.body.0.bias",
    }


@pytest.mark.parametrize(("lr", "expected"), [(None, 0.05), (0.3, 0.3)])
def test_its_learning_rate_stays_the_same(lr: float | None, expected: float) -> None:
    watcher = head_started(changed(TWO, lr=lr))
    assert [line["learning_rate"] for line in watcher.lines[:2]] == pytest.approx([expected] * 2)
    assert watcher.lines[2]["learning_rate"] < 0.05


def test_it_ends_when_the_loss_has_stopped_to_fall() -> None:
    rule = HeadStartSection(until="converged", max_epochs=4)
    never, soon = (head_started(changed(rule, tolerance=tolerance)) for tolerance in (0.0, 0.9))
    assert [line["phase"] for line in soon.lines] == ["head", "head", "train"]
    losses = [line["loss"] for line in never.lines if line["phase"] == "head"]
    falls = [after < before for before, after in itertools.pairwise(losses)]
    assert all(falls[:-1])
    assert len(losses) == 4 or not falls[-1]


def test_scores_at_its_end_and_what_it_says_of_a_head_that_learned_nothing() -> None:
    watcher = head_started(changed(TWO, lr=1e-9))
    assert [line["evaluation"] is None for line in watcher.lines] == [True, False, False]
    assert any("head_start.lr" in text for text in watcher.warnings)


WITH_A_START = changed(EVERYTHING, head_start=HeadStartSection(epochs=2, freeze="body"))


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("whole") / "run"
    retraining = train(tiny_retraining(WITH_A_START, path=path))
    lines = metrics_of(path)
    assert [(line["phase"], line["epoch"], line["step"]) for line in lines] == [
        *(("head", 1, 3), ("head", 2, 6)),
        *(("cold", 1, 9), ("cold", 2, 12)),
        *(("train", 1, 15), ("train", 2, 18)),
    ]
    return weights_hash(retraining), lines, scores_of(retraining)


@pytest.mark.parametrize("step", [1, 3, 4, 6, 7, 12, 13, 18])
@pytest.mark.parametrize("signalled", [True, False])
def test_a_run_resumes_anywhere(uninterrupted: Any, tmp_path: Path, step: int, signalled: bool) -> None:
    path = tmp_path / "run"
    with pytest.raises(InterruptedRunError if signalled else CrashError):
        train(tiny_retraining(WITH_A_START, path=path, progress=(signal_at if signalled else crash_at)(step)))
    retraining = tiny_retraining(WITH_A_START, path=path, grafted=tiny_grafted(seed=99))
    train(retraining, resume=True)
    assert (weights_hash(retraining), metrics_of(path), scores_of(retraining)) == uninterrupted


def test_a_number_of_epochs_or_a_rule(tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        read_recipe("digits-dropout", ["head_start={epochs: 2, until: converged}"])
    assert HeadStartSection().open
    assert HeadStartSection().settled(new_head=True).most_epochs == 5
    assert HeadStartSection().settled(new_head=False).most_epochs == 0
    assert HeadStartSection(epochs=0).settled(new_head=True).most_epochs == 0


# Through the commands

SHORT = ("training.epochs=1", "training.device=cpu", "data.limit=8", "training.batch_size=16", "data.workers=0")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of seven classes that has weights of its own."""
    folder = tmp_path_factory.mktemp("base")
    command = ("graft", "timm/test_resnet", "--random-weights", "--num-classes", 7, "-o", folder / "grafted")
    succeed(*command)
    succeed("strip", folder / "grafted", "-o", folder / "base", "--export", "safetensors")
    return folder / "base"


@pytest.mark.slow
def test_a_new_head_gets_one_and_says_so(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("train", base, "--recipe", "digits-dropout", *SHORT, "--num-classes", 10)
    plan = succeed(*command, "-o", run, "--dry-run", "--json").document
    assert plan["head_start_steps"] == 5 * plan["steps_per_epoch"]
    assert plan["steps"] == 6 * plan["steps_per_epoch"]
    document = succeed(*command, "-o", run, "--json").document
    assert document["untrained"] == "head"
    assert document["original"]["loss"] == pytest.approx(2.3026, rel=0.01)
    assert document["head_start"]["samples"] == document["best"]["samples"]
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[0]["phase"] == "head"
    assert yaml.safe_load((run / "recipe.yaml").read_text())["head_start"]["until"] == "converged"
    again = succeed("train", base, "--recipe", "digits-dropout", *SHORT, "--resume", "-o", run, "--json").document
    assert again["content_hash"] == document["content_hash"]
    assert again["untrained"] == "head"
    text = succeed("train", "--resume", "-o", run).out
    assert "no original to compare with" in text
    assert "over the original" not in text
    stripped = succeed("strip", run, "-o", tmp_path / "better", "--json").document
    assert any("no original" in note for note in stripped["notes"])
    card = (tmp_path / "better" / "README.md").read_text()
    assert "no original to compare with" in card
    assert "head start" in card
    report = succeed("report", run, "-o", tmp_path / "report", "--json").document["runs"][0]
    assert report["untrained"] == "head"
    assert report["head_start"]["top1"] == document["head_start"]["top1"]


@pytest.mark.slow
def test_a_grafted_folder_remembers_that_its_head_is_new_and_a_run_that_it_no_longer_is(
    base: Path, tmp_path: Path
) -> None:
    succeed("graft", base, "--num-classes", 10, "-o", tmp_path / "grafted")
    command = ("--recipe", "digits-dropout", *SHORT, "--json", "--dry-run", "-o", tmp_path / "other")
    assert succeed("train", tmp_path / "grafted", *command).document["head_start_steps"] > 0
    succeed("train", tmp_path / "grafted", "--recipe", "digits-dropout", *SHORT, "-o", tmp_path / "run")
    for further in ((), ("trp.kind=none",)):
        assert succeed("train", tmp_path / "run", *command, *further).document["head_start_steps"] == 0


@pytest.mark.slow
def test_random_weights_and_a_trained_head_have_none(base: Path, tmp_path: Path) -> None:
    command = ("--recipe", "digits-dropout", *SHORT, "--json", "-o", tmp_path / "run")
    document = succeed("train", "timm/test_resnet", "--random-weights", *command).document
    assert (document["untrained"], document["head_start"]) == ("all", None)
    asked = succeed("train", tmp_path / "run", *command[:-1], tmp_path / "b", "head_start.epochs=1").document
    assert asked["untrained"] is None
    assert asked["head_start"]["top1"] >= 0


def test_arms_of_a_comparison_share_it() -> None:
    refused = spgsurgeon("recipes", "check", "digits-dropout", "compare={arms: {mine: {head_start.epochs: 3}}}")
    assert refused.code == 2


@pytest.mark.parametrize("batch_norm", ["track", "freeze"])
def test_it_is_said_if_the_first_epoch_of_training_undoes_it(batch_norm: str) -> None:
    """The running statistics are far from those of a batch, so that a batch gives the head other features."""
    grafted = tiny_grafted()
    norm = grafted.base.get_submodule("body.1")
    norm.running_var.fill_(1e-2)  # type: ignore[operator, union-attr]
    rule = HeadStartSection(epochs=20, lr=0.05)
    settings = changed(SETTINGS, head_start=rule, epochs=1, batch_norm=batch_norm, optimizer=OptimizerSection(lr=1e-6))
    retraining = train(tiny_retraining(settings, grafted=grafted))
    said = [text for text in retraining.remarks if "the loss rose from" in text]
    assert len(said) == (batch_norm == "track")
    assert all("training.batch_norm=freeze" in text for text in said)
