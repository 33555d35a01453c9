"""A run or a comparison that resumes compares recipe and data with those of its start, and names what differs."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Outcome, make_image_folder, make_mask_folder, snapshot, spgsurgeon, succeed
from PIL import Image

from spgsurgeon.checkpoint.sealing import sealed
from spgsurgeon.data.sources.opening import open_source
from spgsurgeon.data.subsets import hold_out, limit_classes
from spgsurgeon.errors import DataError
from spgsurgeon.runs import data_records
from spgsurgeon.runs.data_records import compare, record_of
from spgsurgeon.runs.layout import DATA_FILES
from spgsurgeon.training import run as training

RECIPE = ("--recipe", "digits-dropout", "trp.kind=none", "training.batch_size=3", "data.workers=0")
FOLDER = (*RECIPE, "data.source=folder", "data.path=data", "data.eval=val", "data.holdout=null", "data.image_size=32")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two epochs that resumes the second."""
    place = tmp_path_factory.mktemp("made")
    make_image_folder(place / "data", classes=3, each=3)
    for number, path in enumerate(sorted((place / "data").rglob("*.png"))):
        os.utime(path, ns=(10**18 + number, 10**18 + number))
    before = Path.cwd()
    os.chdir(place)
    try:
        succeed("train", *TINY, *FOLDER, "training.epochs=2", "training.checkpoints.keep=9", "-o", "run")
    finally:
        os.chdir(before)
    last = sorted((place / "run" / "checkpoints").iterdir())[1]
    (place / "run" / "last").unlink()
    (place / "run" / "last").symlink_to(f"checkpoints/{last.name}")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def resume(*options: object) -> Outcome:
    return spgsurgeon("train", "-o", "run", "--resume", *options)


def words(text: str) -> str:
    return " ".join(text.split())


def test_what_has_not_changed_is_resumed_without_a_word(place: Path) -> None:
    outcome = resume()
    assert outcome.code == 0, outcome
    assert "checked" not in outcome.err
    assert "compared" not in outcome.err


def test_a_place_that_was_moved_has_not_changed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.rename(place.with_name("moved"))
    monkeypatch.chdir(place.with_name("moved"))
    assert resume().code == 0


def picture(path: Path, shade: int = 7) -> None:
    Image.new("RGB", (8, 8), (shade, shade, shade)).save(path)


def add(data: Path) -> None:
    picture(data / "train" / "class0001" / "new.png")


def remove(data: Path) -> None:
    (data / "train" / "class0001" / "1.png").unlink()


def rename(data: Path) -> None:
    (data / "train" / "class0001" / "1.png").rename(data / "train" / "class0001" / "9.png")


def replace(data: Path) -> None:
    picture(data / "train" / "class0001" / "1.png", 99)


def replace_by_one_of_the_same_size(data: Path) -> None:
    path = data / "train" / "class0001" / "1.png"
    content = bytearray(path.read_bytes())
    content[-20] ^= 1
    path.write_bytes(content)


def swap(data: Path) -> None:
    one, other = data / "train" / "class0000" / "1.png", data / "train" / "class0001" / "2.png"
    one.rename(data / "t")
    other.rename(one)
    (data / "t").rename(other)


def swap_classes(data: Path) -> None:
    for split in ("train", "val"):
        one, other = data / split / "class0000", data / split / "class0001"
        one.rename(data / "t")
        other.rename(one)
        (data / "t").rename(other)


def rename_a_class(data: Path) -> None:
    for split in ("train", "val"):
        (data / split / "class0000").rename(data / split / "zebra")


def add_a_class(data: Path) -> None:
    for split in ("train", "val"):
        (data / split / "new").mkdir()
        picture(data / split / "new" / "0.png")


def remove_a_class(data: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(data / split / "class0002")


def change_what_is_scored_on(data: Path) -> None:
    (data / "val" / "class0002" / "0.png").unlink()


def exchange_what_is_scored_on(data: Path) -> None:
    for path in (data / "val").rglob("*.png"):
        Image.new("RGB", (9, 9)).save(path)


CHANGES: dict[Callable[[Path], None], tuple[str, ...]] = {
    add: ("training data: added: train/class0001/new.png",),
    remove: ("training data: removed: train/class0001/1.png",),
    rename: ("training data: renamed: train/class0001/1.png to train/class0001/9.png",),
    replace: ("training data: replaced: train/class0001/1.png",),
    replace_by_one_of_the_same_size: ("training data: replaced: train/class0001/1.png",),
    swap: ("training data: exchanged: train/class0000/1.png is now train/class0001/2.png",),
    swap_classes: (
        "training data: exchanged:",
        "evaluation data: exchanged:",
        "val/class0000/0.png is now val/class0001/0.png",
    ),
    rename_a_class: (
        "lost the classes 'class0000'",
        "new classes 'zebra'",
        "train/class0000/0.png to train/zebra/0.png",
    ),
    add_a_class: ("training data: new classes 'new'", "evaluation data: new classes 'new'"),
    remove_a_class: ("training data: lost the classes 'class0002'", "removed: train/class0002/0.png"),
    change_what_is_scored_on: ("evaluation data: removed: val/class0002/0.png",),
    exchange_what_is_scored_on: ("evaluation data: replaced: val/class0000/0.png",),
}


@pytest.mark.parametrize("options", [(), ("--dry-run",)], ids=["", "dry"])
@pytest.mark.parametrize("change", CHANGES)
def test_other_data_is_refused_naming_what_changed(
    change: Callable[[Path], None], options: tuple[str, ...], place: Path
) -> None:
    change(place / "data")
    before = snapshot(place)
    outcome = resume("--json", *options)
    assert outcome.code == 2, outcome
    error = outcome.document["error"]
    for said in CHANGES[change]:
        assert said in error["message"]
    others = [line for line in error["differences"] if not any(part in line for part in CHANGES[change])]
    assert others == [] or change in (rename_a_class, add_a_class, remove_a_class), others
    assert "another one with -o" in error["hint"]
    assert snapshot(place) == before


def test_much_is_named_in_few_words(place: Path) -> None:
    for number in range(2000):
        shutil.copy(
            place / "data" / "train" / "class0000" / "0.png", place / "data" / "train" / "class0000" / f"n{number}.png"
        )
    err = resume().err
    assert "and 1,997 more" in words(err)
    assert len(err) < 500


def test_a_copy_of_the_data_is_said_and_resumed(place: Path) -> None:
    shutil.move(place / "data", place / "older")
    shutil.copytree(place / "older", place / "data", copy_function=shutil.copyfile)
    said = "training data: every file has another time of change, as in a copy"
    assert said in words(resume("--dry-run").err)
    outcome = resume("--json")
    assert (outcome.code, said in str(outcome.document["notes"])) == (0, True), outcome
    assert "as in a copy" not in resume().err, "it is known from now on"
    replace(place / "data")
    assert "replaced: train/class0001/1.png" in words(resume().err)


def test_a_copy_that_is_not_known_to_a_checkpoint_yet_is_known(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move(place / "data", place / "older")
    shutil.copytree(place / "older", place / "data", copy_function=shutil.copyfile)
    with monkeypatch.context() as patch:
        patch.setattr(training.RunFolder, "add_start", lambda *_: 1 / 0)  # killed after its start, before a checkpoint
        assert resume().code == 1
    outcome = resume()
    assert (outcome.code, "as in a copy" in words(outcome.err)) == (0, False)


RECIPES = {
    "epochs": ("epochs: 2", "epochs: 3", "training.epochs was 2, is 3"),
    "rate": ("weight_decay: 0.0001", "weight_decay: 0.5", "training.optimizer.weight_decay"),
    "size": ("image_size: 32", "image_size: 64", "data.image_size was 32, is 64"),
}


@pytest.mark.parametrize("given", [(), "given"], ids=["", "the same recipe given"])
@pytest.mark.parametrize("case", RECIPES)
def test_a_recipe_that_was_edited_by_hand_is_refused_naming_keys(case: str, given: Any, place: Path) -> None:
    old, new, said = RECIPES[case]
    recipe = place / "run" / "recipe.yaml"
    text = recipe.read_text()
    assert old in text, text
    recipe.write_text(text.replace(old, new, 1))
    outcome = resume("--recipe", recipe, *TINY[:1]) if given else resume()
    assert outcome.code == 2, outcome
    assert said in words(outcome.err)


def test_comments_and_what_the_weights_do_not_depend_on_may_change(place: Path) -> None:
    recipe = place / "run" / "recipe.yaml"
    text = recipe.read_text().replace("workers: 0", "workers: 1").replace("cache: none", "cache: memory")
    recipe.write_text(f"# mine\n{text}")
    assert resume().code == 0


# Runs of earlier versions, and what is damaged


def forget(run: Path, key: str | None = None) -> None:
    """Let the checkpoints be as an earlier version wrote them, or without a part of their record."""
    for state in (run / "checkpoints").glob("*/state.json"):
        document = json.loads(state.read_text())
        if key is None:
            del document["stands_on"]
        else:
            del document["stands_on"][key]
        state.write_text(json.dumps(sealed(document)))


def test_a_run_of_an_earlier_version_resumes_and_says_what_could_not_be_checked(place: Path) -> None:
    forget(place / "run")
    (place / "run" / DATA_FILES).unlink()
    (place / "run" / ".spgsurgeon.json").unlink()
    for record in (place / "run" / "checkpoints").glob("*/.spgsurgeon.json"):
        record.unlink()
    outcome = resume()
    assert outcome.code == 0, outcome
    assert words(outcome.err).count("could not be checked") == 1
    replace(place / "data")
    assert "replaced: train/class0001/1.png" in words(resume().err), "from now on it is known"


@pytest.mark.parametrize("key", ["recipe", "data"])
def test_a_part_that_is_not_recorded_is_said(key: str, place: Path) -> None:
    forget(place / "run", key)
    outcome = resume()
    assert outcome.code == 0, outcome
    assert "could not be checked" in words(outcome.err)


@pytest.mark.parametrize("content", [None, b"", b"no gzip", b"\x1f\x8b\x08\x00"])
def test_without_the_list_of_files_a_change_is_still_noticed(content: bytes | None, place: Path) -> None:
    path = place / "run" / DATA_FILES
    path.unlink() if content is None else path.write_bytes(content)
    change = place / "data" / "train" / "class0001" / "1.png"
    good = change.read_bytes()
    replace(place / "data")
    assert "training data: its files have changed" in words(resume().err)
    change.write_bytes(good)
    os.utime(change, ns=(10**18 + 4, 10**18 + 4))
    assert resume().code == 0


# An image that ended the run


def test_a_picture_that_could_not_be_read_may_be_repaired_but_not_removed(place: Path) -> None:
    bad = place / "data" / "train" / "class0001" / "1.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    assert spgsurgeon("train", *TINY, *FOLDER, "-o", "other").code == DataError.exit_code
    assert "class0001/1.png" in (place / "other" / "unreadable.json").read_text()
    bad.unlink()
    outcome = spgsurgeon("train", "-o", "other", "--resume")
    assert (outcome.code, "removed: train/class0001/1.png" in words(outcome.err)) == (2, True), outcome
    bad.write_bytes(good)
    other = place / "data" / "train" / "class0001" / "2.png"
    kept = other.stat()
    replace_by_one_of_the_same_size(place / "data")
    bad.write_bytes(good)
    picture(other)
    outcome = spgsurgeon("train", "-o", "other", "--resume")
    assert (outcome.code, "class0001/1.png" in outcome.err) == (2, False), outcome
    shutil.copy(place / "data" / "val" / "class0001" / "2.png", other)
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert spgsurgeon("train", "-o", "other", "--resume").code == 0


# Every source


def test_masks_and_their_classes_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from spgsurgeon.data.sources.opening import open_source

    make_mask_folder(tmp_path, each=2, side=16)
    before = record_of(open_source("masks", tmp_path, "train", classes=3), tmp_path)
    assert compare(before.summary, before.files, before).differences == []
    (tmp_path / "train" / "masks" / "1.png").write_bytes(b"other")
    now = record_of(open_source("masks", tmp_path, "train", classes=["0", "2", "1"]), tmp_path)
    assert compare(before.summary, before.files, now).differences == [
        "its classes are in another order",
        "replaced: train/masks/1.png",
    ]


def test_samples_are_compared_where_no_file_says(tmp_path: Path) -> None:
    digits = open_source("digits", None, "train")
    one, other = hold_out(digits, 0.2), hold_out(digits, 0.3)
    before = record_of(one[0], None)
    assert before.files == {}
    assert compare(before.summary, {}, record_of(one[0], None)).differences == []
    (said,) = compare(before.summary, {}, record_of(other[0], None)).differences
    assert said.startswith("it has other samples or labels (480 samples before")
    (said,) = compare(before.summary, {}, record_of(limit_classes(digits, 48), None)).differences
    assert said == "it has other samples or labels (480 samples before, 480 now)"


def test_a_hundred_thousand_files_are_looked_at_folder_by_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_image_folder(tmp_path, splits=("train",), classes=4, each=5)
    (tmp_path / "train" / "class0000" / "notes.txt").write_text("no image")
    scanned: list[str] = []
    scan = data_records._scan

    def counted(folder: str) -> Any:
        scanned.append(folder)
        return scan(folder)

    monkeypatch.setattr(data_records, "_scan", counted)
    record = record_of(open_source("folder", tmp_path, "train"), tmp_path)
    assert len(scanned) == 4
    assert len(record.files) == 20
    assert record.files["train/class0000/0.png"][0] == (tmp_path / "train" / "class0000" / "0.png").stat().st_size


# Comparisons


def test_a_comparison_notices_too(place: Path) -> None:
    arguments = (*FOLDER, "data.holdout=0.4", "--seeds", 2, "--arms", "plain", "--jobs", 1, "training.epochs=1")
    succeed("compare", *TINY, *arguments, "-o", "c")
    assert succeed("compare", "--resume", "-o", "c", "--jobs", 1).code == 0
    replace(place / "data")
    outcome = spgsurgeon("compare", "--resume", "-o", "c", "--jobs", 1)
    assert (outcome.code, "replaced: train/class0001/1.png" in words(outcome.err)) == (2, True), outcome
    plan = json.loads((place / "c" / "compare-plan.json").read_text())
    del plan["data"]
    (place / "c" / "compare-plan.json").write_text(json.dumps(plan))
    outcome = spgsurgeon("compare", "--resume", "-o", "c", "--jobs", 1)
    assert (outcome.code, "could not be checked" in words(outcome.err)) == (0, True), outcome
