"""`compare`: what is known of the images that its base was trained on, before it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command_line import TINY, make_image_folder, make_mask_folder, succeed

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.comparing.base import seen_by, write_base
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest
from spgsurgeon.recipe.data_section import DataSection
from spgsurgeon.training.data import open_data, open_training
from spgsurgeon.training.run import train

SMALL = ("training.epochs=1", "training.batch_size=20", "training.device=cpu", "data.workers=0", "data.image_size=16")
DIGITS = {"source": "digits", "holdout": 0.2, "eval": "test"}


def trained(model: str, output: Path, *data: str, random_weights: bool = False) -> Path:
    overrides = ["trp.kind=none", *SMALL, *data]
    train(model, recipe="digits-dropout", overrides=overrides, output=output, random_weights=random_weights)
    return output


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on what nothing is held out of, one of its moving average on a few test images, and one from that."""
    folder = tmp_path_factory.mktemp("runs")
    trained(TINY[0], folder / "first", "data.limit=6", random_weights=True)
    trained(str(folder / "first"), folder / "second", "data.train=test", "data.limit=3", "training.ema=0.5")
    trained(str(folder / "second"), folder / "third", "data.holdout=0.2", "data.limit=2")
    return folder


def data_of(**section: Any) -> DataSection:
    return DataSection(**DIGITS | section)


def descriptions(section: DataSection, *, training: bool) -> set[str]:
    source = open_training(section) if training else open_data(section).evaluation
    return {source.describe(index).partition("(number")[2] for index in range(len(source))}


def test_what_is_counted_are_the_pictures_that_a_run_behind_it_had(runs: Path) -> None:
    held_out, limited = data_of(eval="holdout"), DataSection(source="digits", limit=6)
    both = len(descriptions(held_out, training=False) & descriptions(limited, training=True))
    assert 0 < both < 60
    for name, scored_on in (("first", 0), ("first/best", 0), ("second", 30), ("third", 30)):
        assert seen_by(open_model(ModelRequest(str(runs / name))), data_of()) == {
            "chosen_on": both,
            "scored_on": scored_on,
        }, name
    graft_folder(str(runs / "first"), runs / "grafted")
    assert seen_by(open_model(ModelRequest(str(runs / "grafted"))), data_of()) == {"chosen_on": both, "scored_on": 0}
    assert seen_by(open_model(ModelRequest(str(runs / "first"), num_classes=7)), data_of()) == {
        "chosen_on": both,
        "scored_on": 0,
    }


def test_of_a_model_without_a_run_behind_it_nothing_is_known(runs: Path, tmp_path: Path) -> None:
    named = open_model(ModelRequest(TINY[0], random_seed=0))
    write_base(tmp_path / "hub", named)
    for opened in (named, open_model(ModelRequest(str(tmp_path / "hub")))):
        assert seen_by(opened, data_of()) is None
    shutil.copytree(runs / "third", tmp_path / "third", symlinks=True)
    (tmp_path / "third" / "recipe.yaml").write_text("data: {source: digits, colour: blue}")  # of another version
    assert seen_by(open_model(ModelRequest(str(tmp_path / "third" / "last"))), data_of()) is None


def test_a_run_that_has_other_weights_by_now_is_not_behind_it(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs / "first", "first", symlinks=True)
    trained("first", Path("next"), "data.train=val", "data.limit=2")
    asked = data_of(holdout=0.9)
    before = seen_by(open_model(ModelRequest("next")), asked)
    assert before == seen_by(open_model(ModelRequest("first")), asked) != {"chosen_on": 0, "scored_on": 0}
    shutil.rmtree("first")
    shutil.copytree(runs / "third", "first", symlinks=True)
    assert seen_by(open_model(ModelRequest("next")), asked) == {"chosen_on": 0, "scored_on": 0}


# Which images are the same ones


def seen_after(past: str, asked: DataSection, folder: Path) -> dict[str, int] | None:
    """Return what a base has seen whose run has these lines in its recipe."""
    (folder / "run" / "checkpoints" / "1").mkdir(parents=True)
    (folder / "run" / "recipe.yaml").write_text(past)
    manifest = SimpleNamespace(base={"source": "timm/test_resnet", "content_hash": ""})
    opened: Any = SimpleNamespace(folder=folder / "run" / "checkpoints" / "1", manifest=manifest)
    return seen_by(opened, asked)


@pytest.mark.parametrize(
    ("past", "chosen_on", "scored_on"),
    [
        ("{source: digits, holdout: 0.2}", 0, 0),
        ("{source: digits, holdout: 0.3}", 0, 0),
        ("{source: digits, holdout: 0.1}", 60, 0),
        ("{source: digits}", 120, 0),
        ("{source: digits, train: test, eval: val}", 0, 697),
        ("{source: digits, train: val}", 0, 0),
    ],
)
def test_another_share_held_out_and_another_split(past: str, chosen_on: int, scored_on: int, tmp_path: Path) -> None:
    expected = {"chosen_on": chosen_on, "scored_on": scored_on}
    assert seen_after(f"data: {past}", data_of(), tmp_path) == expected


@pytest.mark.parametrize("source", ["folder", "masks"])
def test_a_folder_is_the_same_however_it_is_spelled(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = make_image_folder if source == "folder" else make_mask_folder
    for name in ("pictures", "others"):
        make(tmp_path / name, classes=2, each=10)
    monkeypatch.chdir(tmp_path)
    classes = "classes: 2" if source == "masks" else "limit: 5"
    section = {"source": source, "path": "pictures", "holdout": 0.5} | ({"classes": 2} if source == "masks" else {})
    past = f"data: {{source: {source}, path: {tmp_path}/others/../%s, {classes}}}"
    (tmp_path / "one").mkdir()
    seen = seen_after(past % "pictures", DataSection(**section), tmp_path / "one")
    assert seen is not None
    assert (seen["chosen_on"] == 5 if source == "masks" else 0 < seen["chosen_on"] < 10, seen["scored_on"]) == (True, 0)
    (tmp_path / "two").mkdir()
    assert seen_after(past % "others", DataSection(**section), tmp_path / "two") == {"chosen_on": 0, "scored_on": 0}


# What is said


def test_a_comparison_says_it_before_it_trains_and_keeps_it(runs: Path, tmp_path: Path) -> None:
    asked = ("--recipe", "digits-dropout", *SMALL, "data.holdout=0.05", "data.limit=4", "data.eval=val", "--jobs", 1)
    few = ("--seeds", 1, "--learning-rates", "1", "-o", tmp_path / "c")
    outcome = succeed("compare", runs / "first", *asked, *few)
    document = json.loads((tmp_path / "c" / "compare.json").read_text())
    count = document["base_seen"]["chosen_on"]
    said = f"itself trained on {count} of the images that learning rates and epochs are chosen on"
    before, _, _ = outcome.err.partition("1 of 2 runs")
    table = (tmp_path / "c" / "compare.md").read_text()
    assert [said in text for text in (" ".join(before.split()), " ".join(outcome.out.split()), table)] == [True] * 3
    succeed("report", tmp_path / "c", "-o", tmp_path / "report")
    assert said in (tmp_path / "report" / "index.html").read_text()
