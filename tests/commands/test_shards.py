"""`train` and `eval` on WebDataset shards, through the command line: the weights are those of the same folder."""

import os
import signal
from pathlib import Path

import pytest
from command_line import Outcome, spgsurgeon, succeed
from tiny_shards import make_same_folder, make_shards, picture, sample, write_tar

from spgsurgeon.cli.terminal.progress import RunProgress

RECIPE = """
trp: {kind: dropout, replicas: 1}
objective: {weights: [0.4]}
data: {source: SOURCE, path: PATH, image_size: 16, workers: 0, augment: {crop: pad}}
training: {epochs: 2, batch_size: 2, device: cpu, optimizer: {lr: 0.05}}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the same images as shards and in folders, a recipe for each, and the run on folders."""
    home = tmp_path_factory.mktemp("shards")
    make_shards(home / "wds")
    make_same_folder(home / "folder")
    for source in ("wds", "folder"):
        text = RECIPE.replace("SOURCE", source).replace("PATH", str(home / source))
        (home / f"{source}.yaml").write_text(text)
    succeed(*train(home, "folder", home / "run"))
    return home


def train(home: Path, source: str, output: Path, *overrides: str) -> tuple[object, ...]:
    recipe = home / f"{source}.yaml"
    return ("train", "timm/test_resnet", "--random-weights", "--recipe", recipe, "-o", output, "--json", *overrides)


def evaluate(home: Path, *arguments: object) -> Outcome:
    return spgsurgeon("eval", home / "run", "--data", "wds", "--device", "cpu", "--workers", 0, "--json", *arguments)


def test_a_run_that_is_stopped_within_an_epoch_and_resumed_ends_where_the_folders_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[RunProgress] = []

    def stop_at_the_third(self: RunProgress) -> None:
        steps.append(self)
        if len(steps) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    output = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(RunProgress, "advance", stop_at_the_third)
        assert spgsurgeon(*train(home, "wds", output)).code == 143
    resumed = succeed("train", "-o", output, "--resume", "--json").document
    assert len(steps) == 3
    assert resumed["steps"] == 12
    for name in ("last", "best"):
        weights = (output / name / "model.safetensors").read_bytes()
        assert weights == (home / "run" / name / "model.safetensors").read_bytes()


def test_a_split_by_pattern_with_named_classes(home: Path, tmp_path: Path) -> None:
    split = "data.train='train-{000..001}.tar::train-002.tar|12'"
    document = succeed(
        *train(home, "wds", tmp_path / "run", split, "data.classes=[ant, bee, cat, dog]", "--dry-run")
    ).document
    assert document["data"]["train"]["samples"] == 12
    assert document["data"]["classes"] == 4


def test_a_dry_run_counts_the_classes_of_both_splits(home: Path, tmp_path: Path) -> None:
    split = "data.eval=val-000.tar"  # which has the first class alone
    assert succeed(*train(home, "wds", tmp_path / "run", split, "--dry-run")).document["data"]["classes"] == 3


def test_scores_of_shards_are_those_of_the_folder(home: Path) -> None:
    scores = evaluate(home, "--data-path", home / "wds").document
    folder = spgsurgeon("eval", home / "run", "--data", home / "folder", "--workers", 0, "--device", "cpu", "--json")
    assert scores["samples"] == 12
    assert {key: scores[key] for key in ("top1", "loss")} == {key: folder.document[key] for key in ("top1", "loss")}
    part = evaluate(home, "--data-path", home / "wds", "--split", "val-000.tar").document
    assert part["samples"] == 4  # of one class: nothing but the model says that there are three


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), 2, ("--data wds needs the folder it lies in", "--data-path FOLDER")),
        (("--data-path", "s3://bucket/x"), 2, ("could not resume exactly", "mount the bucket")),
        (("--data-path", "{home}/wds", "--split", "vla"), 2, ("no shards for the split 'vla'", "did you mean 'val'?")),
        (("--data-path", "{home}/wds", "--split", "val-{000..004}.tar"), 2, ("2 of the 5 shards",)),
        (("--data-path", "{home}/more"), 2, ("has 8 classes", "has 3")),
        (("--data-path", "{home}/folder/train"), 2, ("no shards for the split 'val'", "there is no tar file")),
        (("--data-path", "{home}/cut"), 1, ("val-0.tar is damaged", "download")),
    ],
)
def test_refusals(home: Path, arguments: tuple[str, ...], code: int, words: tuple[str, ...]) -> None:
    more = write_tar(home / "more" / "val-0.tar", sample("a", 7, picture(0)))
    write_tar(home / "cut" / "val-0.tar", []).write_bytes(more.read_bytes()[:600])
    outcome = evaluate(home, *(argument.replace("{home}", str(home)) for argument in arguments))
    assert outcome.code == code
    assert all(word in outcome.out for word in words), outcome.out
    assert "Traceback" not in outcome.out + outcome.err


def test_a_name_after_wds_is_told_where_it_belongs(home: Path, tmp_path: Path) -> None:
    outcome = spgsurgeon(*train(home, "wds", tmp_path / "run", "data.source=wds/imagenet"))
    assert outcome.code == 2
    assert "the source is just wds; the path is the folder that holds the data" in outcome.out
