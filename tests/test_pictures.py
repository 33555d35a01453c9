"""data.limit and data.holdout: what a run trains on and is scored on, said wherever a run speaks of its pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, make_image_folder, spgsurgeon, succeed

from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.reporting import gallery
from spgsurgeon.training.sources import open_source
from spgsurgeon.workflows.pictures import open_data, open_training

PARTS = ("data.holdout=0.1", "data.eval=holdout", "data.limit=6", "training.batch_size=20", "data.workers=0")


def test_training_and_scoring_are_on_other_pictures_whatever_the_seed() -> None:
    opened = [open_data(read_recipe("digits-dropout", [*PARTS, f"training.seed={seed}"]).data) for seed in (0, 1)]
    names = [
        [[part.describe(index) for index in range(len(part))] for part in (data.train, data.evaluation)]
        for data in opened
    ]
    assert names[0] == names[1]
    (trained, scored), whole = names[0], open_source("digits", None, "train")
    assert not set(trained) & set(scored)
    assert set(trained) | set(scored) <= {whole.describe(index) for index in range(len(whole))}
    assert (len(trained), len(scored)) == (60, 60)


def test_what_is_held_out_is_not_trained_on_when_another_split_is_scored() -> None:
    held = open_data(read_recipe("digits-dropout", ["data.holdout=0.1", "data.eval=holdout"]).data)
    other = open_data(read_recipe("digits-dropout", ["data.holdout=0.1"]).data)
    assert (other.train.name, other.evaluation.name) == ("digits (train), 540 of 600", "digits (val)")
    assert [held.train.describe(i) for i in range(540)] == [other.train.describe(i) for i in range(540)]
    assert held.evaluation.name == "digits (train), 60 of 600 held out"


def test_a_plan_says_which_pictures(tmp_path: Path) -> None:
    plan = succeed("train", *TINY, *DIGITS, *PARTS, "-o", tmp_path / "run", "--dry-run", "--json").document
    names = [plan["data"][split]["name"] for split in ("train", "eval")]
    assert names == ["digits (train), 60 of 600", "digits (train), 60 of 600 held out"]
    assert [plan["data"][split]["samples"] for split in ("train", "eval")] == [60, 60]
    assert plan["steps_per_epoch"] == 3


def test_a_runs_records_are_of_its_pictures_and_its_report_shows_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    monkeypatch.setattr(gallery, "draw", lambda *_: b"")  # figures take most of a report's time
    succeed("train", *TINY, *DIGITS, *PARTS, "-o", run)
    seen = open_training(read_recipe(run / "recipe.yaml").data)
    (line,) = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    recorded = [*line["pictures"]["shortest"], *line["pictures"]["longest"]]
    for picture in recorded:
        assert picture["name"] == seen.describe(picture["sample"])
        assert picture["label"] == seen.read(picture["sample"])[1]
    report = succeed("report", run, "-o", tmp_path / "report", "-v")
    assert "not shown" not in report.err
    page = (tmp_path / "report" / "index.html").read_text()
    assert page.count("data:image/jpeg") == len(recorded)
    assert "digits, train and holdout, 0.1 of train held out, at most 6 pictures of each class" in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.eval=holdout"], "data.eval: eval: holdout needs data.holdout, the share that is left out of training"),
        (["data.holdout=1.0"], "data.holdout: 1.0 is refused, it must be less than 1"),
        (["data.limit=0"], "data.limit: 0 is refused, it must be 1 or more"),
        (["data.source=voc", "data.path=x", "data.limit=3"], "data.limit: limit goes by a picture's class"),
        (["data.holdout=0.0001"], "a holdout of 0.0001 of digits (train) is empty: it has 600 samples of 10 classes"),
        (["data.limit=3"], "digits (train), 30 of 600 has 30 samples, too few for one batch"),
    ],
)
def test_parts_that_can_not_be(overrides: list[str], message: str, tmp_path: Path) -> None:
    outcome = spgsurgeon("train", *TINY, *DIGITS, *overrides, "-o", tmp_path / "run", "--dry-run")
    assert outcome.code == 2
    assert message in " ".join(outcome.err.split())


def test_counted_classes_are_those_of_the_whole(tmp_path: Path) -> None:
    root = make_image_folder(tmp_path, splits=("train",), classes=3, each=4)
    overrides = ["data.source=folder", f"data.path={root}", "data.holdout=0.25", "data.eval=holdout", "data.limit=1"]
    data = open_data(read_recipe("digits-dropout", overrides).data)
    assert data.train.classes == data.evaluation.classes == ("class0000", "class0001", "class0002")
    assert data.train.name == f"{root / 'train'}, 3 of 12"
