"""What --force, --resume and clean-up must never remove: what others put there, and what a command reads."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, Outcome, make_image_folder, snapshot, spgsurgeon, succeed

SMALL = ("training.batch_size=500", "data.workers=0")
PLAIN = ("train", *TINY, *DIGITS, *SMALL, "trp.kind=none")
OF_FOLDER = ("--recipe", "digits-dropout", "data.source=folder", "data.eval=val", "data.holdout=null")
ON_FOLDER = (*OF_FOLDER, "data.image_size=32", "training.batch_size=2", "training.epochs=1", "training.device=cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, a grafted folder and a stripped one, made once and copied by whoever changes them."""
    place = tmp_path_factory.mktemp("made")
    succeed(*PLAIN, "-o", place / "run")
    succeed("graft", *TINY, "--num-classes", 10, "-o", place / "grafted")
    succeed("strip", place / "grafted", "-o", place / "stripped", "--export", "safetensors", "--export", "pt")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, as the working folder."""
    shutil.copytree(made, tmp_path / "place", symlinks=True)
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def refused(place: Path, *arguments: object) -> Outcome:
    """Run a command that has to be refused without a change to anything."""
    before = snapshot(place)
    outcome = spgsurgeon(*arguments)
    assert outcome.code == 2, outcome
    assert snapshot(place) == before
    return outcome


# Clean-up of a run


def put_something(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "thesis.tex").write_text("years of work")


def finished_once_more(run: Path) -> None:
    """Go back to before the last checkpoint, so that it is done, and everything cleaned up, again."""
    (first,) = [entry for entry in (run / "checkpoints").iterdir() if int(entry.name[:8].lstrip("0") or 0) == 0]
    (run / "last").unlink()
    (run / "last").symlink_to(f"checkpoints/{first.name}")


@pytest.mark.parametrize("name", ["my-backup", "7", "00000099", "00000000-backup", ".mine.tmp", "12-old", "-again"])
def test_what_a_user_put_into_a_runs_checkpoints_survives(name: str, place: Path) -> None:
    put_something(place / "run" / "checkpoints" / name)
    (place / "run" / "checkpoints" / "notes.txt").write_text("mine")
    (place / "run" / ".mine.tmp").write_text("mine")
    (place / ".run.mine.tmp").mkdir()
    (place / ".run.mine.tmp" / "recipe.yaml").write_text("mine")
    succeed("train", "-o", "run", "--resume")
    succeed("train", "-o", "run", "--resume")
    assert (place / "run" / "checkpoints" / name / "thesis.tex").read_text() == "years of work"
    assert (place / "run" / "checkpoints" / "notes.txt").is_file()
    assert (place / "run" / ".mine.tmp").is_file()
    assert (place / ".run.mine.tmp" / "recipe.yaml").is_file()


def test_a_copy_of_a_checkpoint_under_another_step_is_the_users(place: Path) -> None:
    checkpoints = place / "run" / "checkpoints"
    older = (place / "run" / "last").resolve()
    for name in ("00000077", "00000000-again"):
        shutil.copytree(older, checkpoints / name)
    succeed("train", "-o", "run", "--resume")
    for name in ("00000077", "00000000-again"):
        assert (checkpoints / name / "model.safetensors").is_file()


def test_a_file_that_a_user_put_into_a_checkpoint_survives_it(place: Path) -> None:
    recipe = (*DIGITS[:2], "training.epochs=4", "training.device=cpu", "training.checkpoints.keep=1")
    succeed("train", *TINY, *recipe, *SMALL, "trp.kind=none", "training.checkpoints.steps=1", "-o", "short")
    dropped = place / "short" / "checkpoints" / "00000000"
    (place / "short" / "last").resolve()
    assert not dropped.exists()
    run = place / "run"
    (run / "checkpoints" / "00000000").mkdir(exist_ok=True)
    (run / "checkpoints" / "00000000" / "notes.txt").write_text("mine")
    succeed("train", "-o", "run", "--resume")
    assert (run / "checkpoints" / "00000000" / "notes.txt").read_text() == "mine"


def test_checkpoints_that_are_a_link_elsewhere_lose_nothing(place: Path) -> None:
    elsewhere = place / "elsewhere"
    (place / "run" / "checkpoints").rename(elsewhere)
    (place / "run" / "checkpoints").symlink_to(elsewhere)
    put_something(elsewhere / "my-backup")
    put_something(elsewhere / "00000500")
    before = snapshot(elsewhere)
    outcome = succeed("train", "-o", "run", "--resume")
    assert before.items() <= snapshot(elsewhere).items()
    assert "is a link, so nothing is removed there" in " ".join(outcome.err.split())


def test_an_unstarted_run_goes_without_what_is_not_its_own(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        put_something(place / "new" / "mine")
        raise OSError(5, "no")

    monkeypatch.setattr("spgsurgeon.training.loop.evaluate", fail)
    assert spgsurgeon(*PLAIN, "-o", "new").code == 1
    assert snapshot(place / "new").keys() == {"mine", "mine/thesis.tex"}


# --force

STRANGERS = {
    "a project with a config.json": {"config.json": "{}", "main.py": "print()"},
    "a lone config.json": {"config.json": "{}"},
    "a folder with weights": {"model.safetensors": "precious"},
    "a recipe of one's own": {"recipe.yaml": "model: mine\n"},
    "a grafted folder by its names": {"graft.json": "{}", "config.json": "{}"},
    "a demo by its name": {"demo.json": "{}"},
    "a comparison by its name": {"compare-plan.json": "{}"},
    "a record by its name": {".spgsurgeon.json": "{}", "main.py": ""},
}
FORCED = {
    "graft": ("graft", "stripped", "-o", "proj"),
    "strip": ("strip", "grafted", "-o", "proj"),
    "train": (*PLAIN, "-o", "proj"),
    "report": ("report", "run", "-o", "proj"),
    "demo": ("demo", "-o", "proj"),
    "compare": ("compare", *TINY, *DIGITS, *SMALL, "--seeds", "2", "--arms", "plain", "-o", "proj"),
}


@pytest.mark.parametrize("verb", FORCED)
@pytest.mark.parametrize("case", STRANGERS)
def test_force_replaces_no_stranger(case: str, verb: str, place: Path) -> None:
    (place / "proj").mkdir()
    for name, text in STRANGERS[case].items():
        (place / "proj" / name).write_text(text)
    err = refused(place, *FORCED[verb], "--force").err
    assert "not replaced, even with --force" in err
    assert any(name in err for name in STRANGERS[case])


@pytest.mark.parametrize("output", ["run", "grafted", "stripped"])
@pytest.mark.parametrize("put", ["notes.txt", "deeper/notes.txt"])
def test_force_spares_our_own_folder_with_a_strangers_file(output: str, put: str, place: Path) -> None:
    (place / output / put).parent.mkdir(exist_ok=True)
    (place / output / put).write_text("mine")
    shutil.copytree(place / "grafted", place / "source")
    (place / "source" / put).unlink(missing_ok=True)
    err = refused(place, "graft", *TINY, "--num-classes", 10, "-o", output, "--force").err
    assert put.partition("/")[0] in err


def test_force_spares_strangers_within_what_is_ours(place: Path) -> None:
    (place / "run" / "checkpoints" / "00000000").mkdir(exist_ok=True)
    for folder in ("checkpoints/my-backup", "tensorboard/mine", "checkpoints/00000000/mine"):
        put_something(place / "run" / folder)
        assert "mine" in refused(place, *PLAIN, "-o", "run", "--force").err or "my-backup"
        shutil.rmtree(place / "run" / folder)


def test_force_spares_a_run_whose_checkpoints_are_a_link(place: Path) -> None:
    (place / "run" / "checkpoints").rename(place / "elsewhere")
    (place / "run" / "checkpoints").symlink_to(place / "elsewhere")
    assert "checkpoints" in refused(place, *PLAIN, "-o", "run", "--force").err


@pytest.mark.parametrize("output", ["run", "grafted", "stripped"])
def test_force_replaces_what_is_ours(output: str, place: Path) -> None:
    shutil.copytree(place / "run", place / "source", symlinks=True)
    succeed("train", "-o", "run", "--resume")  # which may have changed it since it was made
    succeed("strip", "source", "-o", output, "--force")
    assert {path.name for path in (place / output).iterdir()} >= {"model.safetensors", "README.md"}
    assert not (place / output / "recipe.yaml").exists()
    assert not (place / output / "temporary.safetensors").exists()
    succeed(*PLAIN, "-o", output, "--force")
    assert (place / output / "best" / "graft.json").is_file()
    assert [path.name for path in place.iterdir() if path.name.startswith(".")] == []


# Inputs

INTO_INPUTS = {
    "onto the data": ("z/data", "z/data", "{recipe}"),
    "around the data": ("z/data", "z", "{recipe}"),
    "inside a split": ("z/data", "z/data/train/run", "{recipe}"),
    "onto the data through a link": ("z/data", "link", "{recipe}"),
    "with data through a link": ("link", "z/data", "{recipe}"),
    "onto the recipe's folder": ("z/data", "mine", "mine/recipe.yaml"),
    "onto the recipe": ("z/data", "mine/recipe.yaml", "mine/recipe.yaml"),
}


def forced_inputs(place: Path, case: str) -> tuple[list[object], str]:
    data, output, recipe = INTO_INPUTS[case]
    make_image_folder(place / "z" / "data")
    (place / "z" / "data" / ".spgsurgeon.json").write_text(
        json.dumps({"holds": ["*", "*/*", "*/*/*"]})
    )  # even if it said that it is ours
    (place / "link").symlink_to("z/data")
    (place / "mine").mkdir()
    shutil.copy(Path(__file__).parents[2] / "recipes" / "digits-dropout.yaml", place / "mine" / "recipe.yaml")
    arguments = [argument for argument in ON_FOLDER if argument not in ("--recipe", "digits-dropout")]
    return [*arguments, "--recipe", recipe.format(recipe="digits-dropout"), f"data.path={data}"], output


@pytest.mark.parametrize("force", [(), ("--force",)], ids=["", "force"])
@pytest.mark.parametrize("verb", ["train", "compare"])
@pytest.mark.parametrize("case", INTO_INPUTS)
def test_no_output_meets_an_input(case: str, verb: str, force: tuple[str, ...], place: Path) -> None:
    arguments, output = forced_inputs(place, case)
    err = refused(place, verb, *TINY, *arguments, "-o", output, *force).err
    assert "would overwrite the input" in err or (not force and "exists" in err)
    assert "would overwrite the input" in err or not force


def test_a_run_and_its_report_may_lie_beside_the_splits_and_not_in_them(place: Path) -> None:
    make_image_folder(place / "data")
    succeed("train", *TINY, *ON_FOLDER, "data.path=data", "data.workers=0", "-o", "data/run")
    succeed("report", "data/run", "-o", "data/report")
    assert "would overwrite the input" in refused(place, "report", "data/run", "-o", "data/train/report").err


def test_stripping_meets_neither_the_base_nor_the_data_it_came_from(place: Path) -> None:
    succeed("graft", "stripped/model.pt", "--arch", "timm/test_resnet", "-o", "again")
    for output in ("stripped/model.pt", "stripped"):
        assert "would overwrite the input" in refused(place, "strip", "again", "-o", output, "--force").err
    make_image_folder(place / "data")
    succeed("train", *TINY, *ON_FOLDER, "data.path=data", "data.workers=0", "-o", "of-folder")
    assert "would overwrite the input" in refused(place, "strip", "of-folder", "-o", "data/val/better").err


def test_a_run_inside_its_own_base_is_refused(place: Path) -> None:
    for output in ("run/deeper", "run/checkpoints/deeper"):
        err = refused(place, "train", "run", *DIGITS, *SMALL, "trp.kind=none", "-o", output).err
        assert "would overwrite the input" in err


# Temporaries of commands that were killed


def test_what_killed_commands_left_is_swept_by_the_next(place: Path) -> None:
    code = """
import os, sys
from spgsurgeon.checkpoint import writing
writing._sync_tree = writing._sync = lambda path: os.kill(os.getpid(), 9)
from spgsurgeon.cli.app import run
run(sys.argv[1:])
"""
    import subprocess
    import sys

    commands = {
        "a": ("graft", *TINY, "--num-classes", "10", "-o", "a"),
        "b": ("strip", "grafted", "-o", "b"),
        "c.pt": ("strip", "grafted", "-o", "c.pt"),
    }
    for arguments in commands.values():
        done = subprocess.run([sys.executable, "-c", code, *arguments], env=os.environ, check=False)
        assert done.returncode == -9
    left = {path.name for path in place.glob(".*")}
    assert len(left) == 3
    (place / ".a.mine.tmp").mkdir()
    for output, arguments in commands.items():
        succeed(*arguments)
        assert (place / output).exists()
    assert {path.name for path in place.glob(".*")} == {".a.mine.tmp"}
