"""Trackers are told the numbers of a run, offline, and by their own reading they have them."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from command_line import DIGITS, TINY, spgsurgeon, succeed
from packaging.requirements import Requirement
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tiny_runs import tiny_retraining, train

import spgsurgeon as package
from spgsurgeon.errors import SurgeonError
from spgsurgeon.recipe.training_section import TrainingSection
from spgsurgeon.runs.metrics_log import MetricsLog
from spgsurgeon.runs.trackers import TRACKERS
from spgsurgeon.runs.trackers.event_files import add_hyperparameters
from spgsurgeon.runtime import installation
from spgsurgeon.runtime.installation import EXTRAS

STEPS = 4
RUN = ("train", *TINY, *DIGITS, "data.limit=20", "data.workers=0", "training.epochs=1", "-q", "-o", "run")


def test_every_tracker_has_its_key_and_its_extra() -> None:
    assert TRACKERS.keys() <= EXTRAS.keys()
    for name in TRACKERS:
        assert TrainingSection(loggers=(name,)).loggers == (name,)
        assert all(Requirement(package) for package in EXTRAS[name])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, and no variable of any tracker."""
    monkeypatch.chdir(tmp_path)
    for variable in ("WANDB_MODE", "WANDB_PROJECT", "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    return tmp_path


def of_wandb(folder: Path) -> bytes:
    (written,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return written.read_bytes()


def of_mlflow(folder: Path) -> bytes:
    (metrics,) = folder.glob("mlruns/*/*/metrics")
    losses = [line.split() for line in (metrics / "step_loss").read_text().splitlines()]
    assert [int(step) for *_, step in losses] == list(range(1, STEPS + 1))
    first, last = [line.split() for line in (metrics / "evaluation" / "top1").read_text().splitlines()]
    assert (int(first[-1]), int(last[-1])) == (0, STEPS)
    return b" ".join(str(path.relative_to(metrics)).encode() for path in metrics.rglob("*"))


def of_trackio(folder: Path) -> bytes:
    (written,) = (folder / "trackio").glob("*.db")
    with sqlite3.connect(written) as database:
        rows = [str(row) for table in ("metrics",) for row in database.execute(f"SELECT * FROM {table}")]
    database.close()
    return "\n".join(rows).encode()


@pytest.mark.slow
@pytest.mark.parametrize(("name", "read"), [("wandb", of_wandb), ("mlflow", of_mlflow), ("trackio", of_trackio)])
@pytest.mark.filterwarnings("ignore")  # of other people's packages
def test_a_run_is_told_to_a_tracker_that_writes_it_down(name: str, read: Any, here: Path) -> None:
    pytest.importorskip(name, exc_type=ImportError)
    document = succeed(*RUN, f"training.loggers=[{name}]", "--json").document
    assert document["steps"] == STEPS
    content = read(here)
    assert b"step_loss" in content
    assert b"evaluation" in content
    assert not (here / "run" / "tensorboard").exists(), "it was not asked for"


def test_a_tracker_that_is_not_installed_is_refused_before_training(monkeypatch: Any, here: Path) -> None:
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    outcome = spgsurgeon(*RUN, "training.loggers=[wandb]", "--json")
    assert outcome.document["error"]["code"] == "missing-package"
    assert outcome.document["error"]["hint"] == "pip install 'spgsurgeon[wandb]'"
    assert not (here / "run").exists()


class Failing:
    """A tracker whose service is gone."""

    dropped = False

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        raise ConnectionRefusedError("nobody is there") if step else ValueError("no such run")

    def drop(self) -> None:
        self.dropped = True

    def close(self) -> None:
        """Nothing is open."""


def test_a_tracker_that_fails_says_how_to_go_on_without_it(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path, [Failing()])
    with pytest.raises(SurgeonError, match="Failing failed: ValueError: no such run") as caught:
        log.add_original({"top1": 50.0})
    assert caught.value.code == "tracker-failed"
    assert "training.loggers=[]" in str(caught.value.hint)


def test_numbers_that_only_place_others_and_losses_that_are_none_have_no_curve(tmp_path: Path) -> None:
    told: list[tuple[dict[str, float], int]] = []

    class Recording(Failing):
        def log(self, numbers: Mapping[str, float], step: int) -> None:
            told.append((dict(numbers), step))

    log = MetricsLog(tmp_path, [Recording()])
    log.add_losses(3, [1.5, float("nan"), 0.5])
    log.add({"epoch": 1, "phase": "train", "step": 5, "loss": 1.0, "valid_share": [1.0, 0.5]})
    assert told == [
        ({"step_loss": 1.5}, 3),
        ({"step_loss": 0.5}, 5),
        ({"loss": 1.0, "valid_share/0": 1.0, "valid_share/1": 0.5}, 5),
    ]


def test_hyperparameters_go_beside_the_events_of_a_run(tmp_path: Path) -> None:
    path = tmp_path / "run"
    add_hyperparameters(path, {"arm": "spg"}, {"chosen_on/top1": 1.0})
    assert not path.exists(), "a run without events gets none"
    train(tiny_retraining(path=path))
    add_hyperparameters(path, {"arm": "spg", "trp.blocks": None, "seed": 1}, {"chosen_on/top1": 51.0})
    board = EventAccumulator(str(path / "tensorboard")).Reload()
    assert "_hparams_/session_start_info" in board.PluginTagToContent("hparams")
    assert [event.value for event in board.Scalars("chosen_on/top1")] == [51.0]


def test_who_watches_is_told_in_order(here: Path) -> None:
    told: list[str] = []

    class Watching:
        def start(self, steps: int, done: int) -> None:
            told.append(f"start {steps} {done}")

        def original(self, scores: Any) -> None:
            told.append("original")

        def advance(self) -> None:
            told.append("step")

        def epoch(self, metrics: dict[str, Any]) -> None:
            told.append(f"epoch {metrics['epoch']}")

        def warning(self, text: str) -> None:
            told.append("warning")

    watching: package.Progress = Watching()
    overrides = ["data.limit=20", "data.workers=0", "training.epochs=1", "training.device=cpu", "head_start.epochs=0"]
    package.train(
        "timm/test_resnet",
        recipe="digits-dropout",
        overrides=overrides,
        output=Path("run"),
        random_weights=True,
        progress=watching,
    )
    assert told.pop(0) == "warning"  # random weights are said before the training
    assert told == [f"start {STEPS} 0", "original", *["step"] * STEPS, "epoch 1"]
