"""`report`: one page that needs nothing else, of runs that are whole, unfinished or damaged."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import DIGITS, TINY, make_image_folder, snapshot, spgsurgeon, succeed
from PIL import Image

from spgsurgeon.data.sources import images as image_sources
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.reporting import gallery, thumbnails

COLD = ("training.epochs=2", "cold_start.epochs=2")


@dataclass
class Page(HTMLParser):
    """A page as a browser takes it apart."""

    text: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def said(self) -> str:
        """What is to be read, whatever the spaces."""
        return " ".join(" ".join(self.words).split())

    def images(self, kind: str) -> list[bytes]:
        """Return the images of a kind that are inside."""
        found = [str(attributes["src"]) for tag, attributes in self.tags if tag == "img"]
        head = f"data:image/{kind};base64,"
        return [base64.b64decode(uri.removeprefix(head)) for uri in found if uri.startswith(head)]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `spg`, two cold epochs and two others, and its control `plain`."""
    folder = tmp_path_factory.mktemp("trained")
    said = succeed("train", *TINY, *DIGITS, *COLD, "-o", folder / "spg").err
    (folder / "said.txt").write_text(said)
    succeed("train", *TINY, *DIGITS, "trp.kind=none", "-o", folder / "plain")
    return folder


@pytest.fixture
def spg(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run that a test may change. Its figures are empty: drawing them takes most of a report's time."""
    monkeypatch.setattr(gallery, "draw", lambda *_: b"")
    return shutil.copytree(trained / "spg", tmp_path / "spg", symlinks=True)


def change_lines(run: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change each line of a run's metrics."""
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        change(line)
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def record_pictures(run: Path, **wrong: Any) -> None:
    """Let a run have recorded two images in each epoch; `wrong` is what it says of the second."""
    digits = open_source("digits", None, "train")
    first, second = (
        {
            "sample": sample,
            "name": digits.describe(sample),
            "label": digits.read(sample)[1],
            "length": length,
            "cross_entropy": 2.5,
        }
        for sample, length in ((7, 1), (11, 4))
    )
    change_lines(run, lambda line: line.update(pictures={"shortest": [first], "longest": [second | wrong]}))


def page_of(*runs: Path, output: Path) -> Page:
    """Report the runs and return the page."""
    succeed("report", *runs, "-o", output, "-v")
    return Page((output / "index.html").read_text())


def test_the_page_needs_nothing_else_and_has_every_figure(trained: Path, tmp_path: Path) -> None:
    before = snapshot(trained)
    document = succeed("report", trained / "spg", trained / "plain", "-o", tmp_path / "out", "--json", "-v").document
    assert snapshot(trained) == before
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == document
    assert (document["output"], document["page"]) == (str(tmp_path / "out"), str(tmp_path / "out" / "index.html"))
    page = Page(Path(document["page"]).read_text())
    assert {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"} == set()
    for _, attributes in page.tags:
        assert str(attributes.get("href", "#")).startswith("#")
        assert str(attributes.get("src", "data:")).startswith("data:")
    assert not re.search(r"https?:|url\(|@import", page.text)
    assert page.images("png") == [Path(figure).read_bytes() for figure in document["figures"]]
    assert [Path(figure).stem for figure in document["figures"]] == [
        *("score-top1", "loss", "learning-rate", "run-1-classes", "run-2-classes"),
        *("run-1-valid-share", "run-1-accepted", "throughput", "cold-start"),
    ]


def test_the_classes_of_the_best_epoch_are_on_the_page(spg: Path, tmp_path: Path) -> None:
    lines = [json.loads(text) for text in (spg / "metrics.jsonl").read_text().splitlines()]
    assert [line.get("by_class") is not None for line in lines] == [line["phase"] == "train" for line in lines]
    for line in lines:
        if line["phase"] == "train":
            right, units = sum(line["by_class"]["right"]), sum(line["by_class"]["units"])
            assert 100 * right / units == pytest.approx(line["evaluation"]["top1"])
    best = max(lines, key=lambda line: (line["evaluation"] or {"top1": -1})["top1"])
    label, predicted, units = best["by_class"]["confusions"][0]
    share = f"{100 * units / best['by_class']['units'][label]:.1f} %"
    said = page_of(spg, output=tmp_path / "out").said
    assert f"taken for units of the class {label} {predicted} {units} {share}" in said


def test_the_page_and_the_document_say_who_scored_what(trained: Path, tmp_path: Path) -> None:
    document = succeed("report", trained / "spg", trained / "plain", "-o", tmp_path / "out", "--json").document
    page = Page((tmp_path / "out" / "index.html").read_text())
    for row, name, epochs in zip(document["runs"], ("spg", "plain"), ((2, 2), (1, 0)), strict=True):
        counters = json.loads((trained / name / "last" / "state.json").read_text())["counters"]
        assert row == {
            "run": str(trained / name),
            "epochs": epochs[0],
            "cold_epochs": epochs[1],
            "head_epochs": 0,
            "untrained": counters["untrained"],
            "head_start": None,
            **{score: counters[score] for score in ("original", "best", "last")},
        }
        gain = f"{row['best']['top1'] - row['original']['top1']:+.2f}"
        assert (gain in page.said) == (row["untrained"] is None), "random weights are no original"
    for words in (
        "2 of 2 epochs, after 2 cold",
        "3 dropout replicas, rate 0.2",
        "none: plain retraining, the control",
        "sgd, learning rate 0.02",
        "chosen by the evaluation split",
        "plain: plain retraining, without episodes",
    ):
        assert words in page.said
    assert re.search(r"What differs: .* trp.kind dropout none", page.said)


def test_an_epoch_has_the_same_number_everywhere(trained: Path, tmp_path: Path) -> None:
    lines = [json.loads(text) for text in (trained / "spg" / "metrics.jsonl").read_text().splitlines()]
    phases = [("cold", 1), ("cold", 2), ("train", 1), ("train", 2)]
    assert [(line["phase"], line["epoch"]) for line in lines] == phases
    console = re.findall(r"^((?:cold )?epoch) +(\d+)  loss ([0-9.]+)", (trained / "said.txt").read_text(), re.MULTILINE)
    names = {"cold": "cold epoch", "train": "epoch"}
    assert console == [(names[each["phase"]], str(each["epoch"]), f"{each['loss']:.4f}") for each in lines]
    assert "ended their episode in epoch 2." in page_of(trained / "spg", output=tmp_path / "out").said


def test_what_happened_on_the_way_is_said(spg: Path, tmp_path: Path) -> None:
    def happened(line: dict[str, Any]) -> None:
        line["data_seconds"] = line["seconds"] / 4
        trained = line["phase"] == "train"
        line["skipped_steps"] = 4 if trained else 2 * (line["epoch"] - 1)
        line["unreadable_pictures"] = int(trained and line["epoch"] == 2)

    change_lines(spg, happened)
    start = {"step": 0, "torch": "2.14.0", "device": "cpu", "flags": {"tf32": False}}
    later = start | {"step": 24, "device": "NVIDIA H100"}
    (spg / "environment.json").write_text(json.dumps({"starts": [start, later]}))
    page = page_of(spg, output=tmp_path / "out")
    assert (tmp_path / "out" / "figures" / "run-1-accepted.png").is_file()
    for words in (
        "4 steps were skipped, in cold epoch 2 and epoch 1.",
        "1 sample could not be read, in epoch 2.",
        "waiting for data 25.0 %",
        "device NVIDIA H100, torch 2.14.0",
        "step 0 torch 2.14.0 device cpu flags.tf32 false Later start, what changed step 24 device NVIDIA H100",
    ):
        assert words in page.said


# Images


def test_the_pictures_are_inside_and_no_others_are_read(
    spg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_pictures(spg)
    read = []
    original = image_sources._Digits.read
    monkeypatch.setattr(
        image_sources._Digits, "read", lambda self, index: (read.append(index), original(self, index))[1]
    )
    page = page_of(spg, output=tmp_path / "out")
    assert read == [7, 11]
    shown = [np.asarray(Image.open(io.BytesIO(jpeg)).convert("L"), dtype=float) for jpeg in page.images("jpeg")]
    digits = open_source("digits", None, "train")
    for sample, pixels in zip((7, 11), shown, strict=True):
        there = np.asarray(digits.read(sample)[0].convert("L"), dtype=float)
        assert np.abs(pixels - there).mean() < 8
    assert "length 1 loss 2.5 digits (train), sample 7" in page.said
    record_pictures(spg, predicted=5)
    page = page_of(spg, output=tmp_path / "again")
    label = digits.read(11)[1]
    assert f"{label} predicted 5 length 4 loss 2.5" in page.said
    assert f"{label}, predicted 5" in [attributes.get("alt") for tag, attributes in page.tags if tag == "img"]


def test_large_pictures_are_made_small(spg: Path, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "data", classes=10, each=1)
    large = root / "train" / "class0003" / "0.png"
    Image.effect_noise((900, 600), 60).convert("RGB").save(large)
    picture = {"sample": 3, "name": str(large), "label": 3, "length": 1, "cross_entropy": 1.0}
    change_lines(spg, lambda line: line.update(pictures={"shortest": [picture], "longest": []}))
    point_to(spg, root)
    page = page_of(spg, output=tmp_path / "out")
    (jpeg,) = page.images("jpeg")
    assert max(Image.open(io.BytesIO(jpeg)).size) < 300
    assert "class0003/0.png" in page.said


def point_to(run: Path, root: Path) -> None:
    """Let the run's training data lie in a folder."""
    recipe = (run / "recipe.yaml").read_text()
    changed = recipe.replace("source: digits", "source: folder").replace("path: null", f"path: {root}")
    (run / "recipe.yaml").write_text(changed)


def test_without_the_data_its_pictures_are_named(spg: Path, tmp_path: Path) -> None:
    record_pictures(spg)
    point_to(spg, tmp_path / "gone")
    outcome = succeed("report", spg, "-o", tmp_path / "out")
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert page.images("jpeg") == []
    for sample in (7, 11):
        assert open_source("digits", None, "train").describe(sample) in page.said
    for text in (page.said, outcome.err):
        assert f"The training data can't be opened, so its images are named, not shown: data path {tmp_path}" in text


@pytest.mark.parametrize(
    "wrong", [{"label": 99}, {"name": "another.png"}, {"sample": 10**6}], ids=["label", "name", "sample"]
)
def test_a_sample_that_is_another_one_now_is_not_shown(wrong: dict[str, Any], spg: Path, tmp_path: Path) -> None:
    record_pictures(spg, **wrong)
    page = page_of(spg, output=tmp_path / "out")
    assert len(page.images("jpeg")) == 1
    assert "1 of 2 images are named, not shown: in digits (train) they can't be read or have changed." in page.said


def test_a_picture_that_cannot_be_decoded_is_named(spg: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Damaged(type(open_source("digits", None, "train"))):  # type: ignore[misc]
        def read(self, index: int) -> Any:
            raise SyntaxError("broken PNG file")

    record_pictures(spg)
    digits = open_source("digits", None, "train")
    monkeypatch.setattr(thumbnails, "open_training", lambda *_: Damaged(**vars(digits)))
    page = page_of(spg, output=tmp_path / "out")
    assert page.images("jpeg") == []
    assert "2 of 2 images are named, not shown" in page.said


# Runs that are not whole


def test_names_from_files_are_text_and_never_markup(spg: Path, tmp_path: Path) -> None:
    evil = '<script>alert("1")</script><img src=x onerror=alert(1)>&amp;'
    record_pictures(spg, name=evil, label=0)
    (spg / "environment.json").write_text(json.dumps({"starts": [{evil: evil, "flags": {evil: [evil]}}]}))
    config = json.loads((spg / "last" / "config.json").read_text())
    (spg / "last" / "config.json").write_text(json.dumps(config | {"label_names": [evil] * 10}))
    change_lines(spg, lambda line: line.update(accepted_by_class=[[1, 2, 3, 4]] * 10))
    recipe = (spg / "recipe.yaml").read_text()
    (spg / "recipe.yaml").write_text(recipe.replace("model: ", "model: '" + evil + "' #"))
    run = spg.rename(tmp_path / "<b>&amp;'\"")
    page = page_of(run, output=tmp_path / "out")
    assert {tag for tag, _ in page.tags} & {"script", "b"} <= {"b"}
    assert all(str(attributes["src"]).startswith("data:") for tag, attributes in page.tags if tag == "img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.said.count(evil) >= 5
    assert "<b>&amp;'\"" in page.said


def test_a_run_that_was_killed_at_once_gives_a_page(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    shutil.copy(trained / "spg" / "recipe.yaml", tmp_path / "run")
    document = succeed("report", tmp_path / "run", "-o", tmp_path / "out", "--json").document
    none_yet = dict.fromkeys(("untrained", "original", "head_start", "best", "last"))
    nothing = {"epochs": 0, "cold_epochs": 0, "head_epochs": 0, **none_yet}
    assert document["runs"] == [{"run": str(tmp_path / "run"), **nothing}]
    assert document["figures"] == []
    page = Page((tmp_path / "out" / "index.html").read_text())
    assert "0 of 2 epochs, not finished" in page.said
    assert "its first evaluation has not ended" in page.said
    assert "none yet" in succeed("report", tmp_path / "run", "-o", tmp_path / "again").out


def test_a_run_with_its_first_evaluation_only_gives_a_page(spg: Path, tmp_path: Path) -> None:
    (spg / "metrics.jsonl").unlink()
    page = page_of(spg, output=tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "figures").iterdir()] == ["score-top1.png"]
    assert "No epoch is recorded yet" in page.said


def test_damaged_lines_are_left_out_and_said(spg: Path, tmp_path: Path) -> None:
    lines = (spg / "metrics.jsonl").read_text().splitlines()
    (spg / "metrics.jsonl").write_text("\n".join(["{", *lines[:3], lines[3][:40]]) + "\n")
    page = page_of(spg, output=tmp_path / "out")
    assert "metrics.jsonl is damaged: lines 1, 5 are left out here." in page.said
    assert "2 of 2 epochs, after 2 cold" in page.said, "the checkpoint knows"
    (spg / "metrics.jsonl").write_text("{\n")
    page = page_of(spg, output=tmp_path / "again")
    assert "metrics.jsonl is damaged: line 1 is left out here." in page.said


def test_a_lost_checkpoint_and_a_damaged_environment_are_said(spg: Path, tmp_path: Path) -> None:
    shutil.rmtree(spg / "checkpoints")
    (spg / "environment.json").write_text('{"starts": [7]}')
    page = page_of(spg, output=tmp_path / "out")
    assert "The last checkpoint can't be read" in page.said
    assert "Versions and devices can't be read" in page.said
    assert "2 of 2 epochs, after 2 cold" in page.said
    assert (tmp_path / "out" / "figures" / "score-top1.png").is_file(), "the epochs have scores"


# Outputs and inputs


def test_force_replaces_a_report(trained: Path, tmp_path: Path) -> None:
    page_of(trained / "plain", output=tmp_path / "out")
    refused = spgsurgeon("report", trained / "spg", "-o", tmp_path / "out")
    assert (refused.code, "--force" in refused.err) == (2, True)
    succeed("report", trained / "spg", "-o", tmp_path / "out", "--force")
    assert "dropout replicas" in Page((tmp_path / "out" / "index.html").read_text()).said
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_runs_of_one_name_go_by_their_paths(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("a", "b"):
        shutil.copytree(trained / "plain", tmp_path / folder / "run", symlinks=True)
    monkeypatch.chdir(tmp_path)
    page = page_of(Path("a/run"), Path("b/run"), output=tmp_path / "out")
    assert "a/run" in page.said
    assert "b/run" in page.said


def test_a_folder_of_runs_names_them(trained: Path, tmp_path: Path) -> None:
    refused = spgsurgeon("report", trained, "-o", tmp_path / "out")
    assert refused.code == 2
    assert f"hint: it holds runs: {trained / 'plain'} {trained / 'spg'}" in refused.err
