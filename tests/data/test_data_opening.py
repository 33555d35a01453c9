"""data.limit and data.holdout: what a run trains on and is scored on, said wherever a run speaks of its images."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import DIGITS, TINY, make_image_folder, spgsurgeon, succeed

from spgsurgeon.checkpoint.folders import read_manifest
from spgsurgeon.data.cache import caching
from spgsurgeon.data.cache import decoded_images as decoded_pictures
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.recipe.reading import read_recipe
from spgsurgeon.reporting import gallery
from spgsurgeon.runtime.resources import default_workers
from spgsurgeon.training import data as pictures
from spgsurgeon.training.data import decoded_pictures_in, open_data, open_training

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
    assert "digits, train and holdout, 0.1 of train held out, at most 6 samples of each class" in page


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.eval=holdout"], "data.eval: eval: holdout needs data.holdout, the share that is left out of training"),
        (["data.holdout=1.0"], "data.holdout: 1.0 is refused, it must be less than 1"),
        (["data.limit=0"], "data.limit: 0 is refused, it must be 1 or more"),
        (["data.source=voc", "data.path=x", "data.limit=3"], "data.limit: limit goes by an image's class"),
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


# data.cache

SMALL = (*TINY, *DIGITS, "data.limit=6", "data.image_size=16", "training.batch_size=20", "training.eval_batch_size=250")


def trained(run: Path, *arguments: object) -> tuple[str, str]:
    """Return a run's weights, by their hash, and what it said."""
    outcome = succeed("train", *SMALL, "trp.kind=none", *arguments, "-o", run)
    return read_manifest(run / "last").weights_hash, outcome.err


@pytest.fixture(scope="module")
def uncached(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("uncached") / "run"
    trained(run)
    return run


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_a_cache_changes_nothing_but_the_time(tmp_path: Path, uncached: Path, cache: str) -> None:
    weights, said = trained(tmp_path / "run", f"data.cache={cache}")
    assert weights == read_manifest(uncached / "last").weights_hash
    for name in ("digits (train), 60 of 600", "digits (val)"):
        assert f"images of {name}, once" in " ".join(said.split())
    (line,) = [json.loads(text) for text in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert line["data_share"] == pytest.approx(line["data_seconds"] / line["seconds"])
    assert line["loader_images_per_core_second"] > 0


def test_a_plan_decodes_no_more_than_it_shows(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(caching, "decode", never)
    succeed("train", *SMALL, "data.cache=device", "-o", tmp_path / "run", "--dry-run")


def test_runs_share_what_they_decode_in_a_folder(tmp_path: Path, uncached: Path) -> None:
    with decoded_pictures_in(tmp_path / "decoded"):
        first, said = trained(tmp_path / "a", "data.cache=memory")
        again, said_then = trained(tmp_path / "b", "data.cache=device")
    alone, said_at_last = trained(tmp_path / "c", "data.cache=device")
    assert ["decoding" in words for words in (said, said_then, said_at_last)] == [True, False, True]
    assert first == again == alone == read_manifest(uncached / "last").weights_hash


def test_a_folder_for_decoded_pictures_that_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with decoded_pictures_in(tmp_path / "file"):
        outcome = spgsurgeon("train", *SMALL, "data.cache=memory", "-o", tmp_path / "run")
    assert (outcome.code, outcome.out) == (1, "")
    assert f"error: decoded images can't be kept in {tmp_path / 'file'}: File exists" in outcome.err
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_may_have_another_cache(tmp_path: Path, uncached: Path) -> None:
    shutil.copytree(uncached, tmp_path / "run", symlinks=True)
    succeed("train", "-o", tmp_path / "run", "--resume", "data.cache=memory", "data.workers=1")
    outcome = spgsurgeon("train", "-o", tmp_path / "run", "--resume", "data.cache=memory", "data.limit=5")
    assert outcome.code == 2
    assert "a resumed run keeps its model and its recipe" in outcome.err
    given = ("train", *SMALL, "trp.kind=none", "-o", tmp_path / "run", "--resume")
    succeed(*given, "data.cache=device", "data.workers=null")
    outcome = spgsurgeon(*given, "data.cache=device", "data.image_size=8")
    assert (outcome.code, "in data.image_size" in " ".join(outcome.err.split())) == (2, True)
    starts = json.loads((tmp_path / "run" / "environment.json").read_text())["starts"]
    wanted = [{"cache": "none", "workers": 0}, {"cache": "memory", "workers": 1}]
    assert [start["data"] for start in starts[:2]] == wanted
    assert starts[2]["data"] == {"cache": "device", "workers": default_workers()}
    succeed("report", tmp_path / "run", "-o", tmp_path / "report")
    page = " ".join(re.sub("<[^>]*>", " ", (tmp_path / "report" / "index.html").read_text()).split())
    assert re.search(r"Later start, what changed step 3 data.cache memory data.workers 1 Later start", page)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.source=voc", "data.path=x", "data.cache=memory"], "data.cache: images with masks, as source: voc"),
        (["data.cache=disk"], "data.cache: 'disk' is refused, it must be 'none', 'memory' or 'device'"),
        (["data.cache=device", "data.augment.policy=augmix"], "data.cache=device augments in batches, which AugMix"),
    ],
)
def test_caches_that_can_not_be(overrides: list[str], message: str, tmp_path: Path) -> None:
    outcome = spgsurgeon("train", *TINY, *DIGITS, *overrides, "-o", tmp_path / "run", "--dry-run")
    assert outcome.code == 2, outcome.err
    assert message in " ".join(outcome.err.split())


@pytest.mark.parametrize("cache", ["memory", "device"])
def test_pictures_that_would_not_fit(cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = (60 + 500) * 3 * 16 * 16
    monkeypatch.setattr(pictures, "free_memory", lambda: 2 * needed)
    succeed("train", *SMALL, f"data.cache={cache}", "-o", tmp_path / "run", "--dry-run")
    monkeypatch.setattr(pictures, "free_memory", lambda: 2 * needed - 1)
    outcome = spgsurgeon("train", *SMALL, f"data.cache={cache}", "-o", tmp_path / "run", "--dry-run")
    assert outcome.code == 1
    assert "more than half" in " ".join(outcome.err.split())
    assert "data.cache=none" in outcome.err


@pytest.mark.slow
def test_the_runs_of_a_comparison_share_what_they_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def count(*arguments: Any) -> Any:
        decoded.append(len(decoded))
        return write(*arguments)

    decoded: list[int] = []
    write = decoded_pictures._write
    monkeypatch.setattr(decoded_pictures, "_write", count)
    monkeypatch.setattr("spgsurgeon.reporting.comparison_figures", lambda *_: {})  # they take long
    parts = ("data.holdout=0.05", "data.eval=test", "data.workers=0", "data.cache=memory")
    asked = ("--arms", "plain,spg", "--seeds", 1, "--learning-rates", "3", "--jobs", 1, "--json")
    document = succeed("compare", *SMALL, *parts, *asked, "-o", tmp_path / "compared").document
    assert document["arms"].keys() == {"plain", "spg"}
    assert len(decoded) == 3  # what is trained on, what is held out, and what is scored
    assert not (tmp_path / "compared" / "decoded").exists()
