"""What goes wrong in strangers' hands: a short message, the right exit code, nothing half-written, inputs untouched."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import urllib.error
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from command_line import DIGITS, TINY, Outcome, make_image_folder, snapshot, spgsurgeon, succeed
from PIL import Image
from safetensors import SafetensorError

from spgsurgeon.checkpoint.ownership import record

SHORT = 400  # characters, of one line of a message

ARCH = ("--arch", "timm/test_resnet")
TINY_VIT = ("train", "timm/test_vit", "--random-weights")
FOLDER = ("--recipe", "cifar10-resnet-dropout", "data.eval=val", "training.batch_size=2", "data.workers=0")
ON_CPU = ("--device", "cpu", "--workers", "0")


class System:
    """Pickles as a call of os.system."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


def change_byte(path: Path) -> None:
    """Change one byte of the last tensor in a safetensors file."""
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good things (base, grafted, run, better, data) and, beside them, damaged copies of each."""
    shop = tmp_path_factory.mktemp("shop")
    base, grafted, run, better = (shop / name for name in ("base", "grafted", "run", "better"))
    succeed("train", *TINY, *DIGITS, "trp.kind=none", "-o", base)
    succeed("graft", base, "-o", grafted)
    succeed("train", grafted, *DIGITS, "-o", run)
    succeed("strip", run, "-o", better, "--export", "safetensors", "--export", "pt")
    make_image_folder(shop / "data")
    _spoil_files(shop)
    _spoil_folders(shop)
    return shop


def _spoil_files(shop: Path) -> None:
    (shop / "text.txt").write_text("Weights? What weights?\n")
    (shop / "text.pth").write_text("Weights? What weights?\n")
    (shop / "empty.pth").touch()
    Image.new("RGB", (8, 8)).save(shop / "picture.png")
    for source, cut in (("model.safetensors", "cut.safetensors"), ("model.pt", "cut.pt")):
        data = (shop / "better" / source).read_bytes()
        (shop / cut).write_bytes(data[: len(data) // 2])
    torch.save({"state_dict": System(f"touch '{shop / 'canary'}'")}, shop / "evil.pth")
    (shop / "evil.pkl").write_bytes(pickle.dumps(System(f"touch '{shop / 'canary'}'")))
    state = torch.load(shop / "better" / "model.pt", weights_only=True)
    torch.save(state | {"fc.bias": torch.full((10,), torch.nan)}, shop / "nan.pth")
    torch.save({key: value for key, value in state.items() if not key.startswith("fc.")}, shop / "headless.pth")
    torch.save({"a.weight": torch.zeros(2, 2)}, shop / "stranger.pth")
    torch.save(timm.create_model("test_efficientnet_gn").state_dict(), shop / "twin.pth")
    (shop / "faulty.yaml").write_text("data: {source: digits}\ntraining:\n  epohcs: 3\n  batch_size: 0\n")
    (shop / "mine").mkdir()
    (shop / "mine" / "thesis.tex").write_text("years of work")


def _spoil_folders(shop: Path) -> None:
    (shop / "no images" / "train" / "cat").mkdir(parents=True)
    (shop / "no classes" / "train").mkdir(parents=True)
    for copy in ("changed", "changed replicas", "lacking", "garbled"):
        shutil.copytree(shop / "grafted", shop / copy)
    change_byte(shop / "changed" / "model.safetensors")
    change_byte(shop / "changed replicas" / "temporary.safetensors")
    (shop / "lacking" / "temporary.safetensors").unlink()
    (shop / "garbled" / "graft.json").write_text('{"format_version": 1')
    shutil.copytree(shop / "run", shop / "changed run", symlinks=True)
    for checkpoint in (shop / "changed run" / "checkpoints").iterdir():
        change_byte(checkpoint / "optimizer.safetensors")


@pytest.fixture(scope="module")
def untouched(shop: Path) -> Path:
    """A copy of the shop, from which it is mended after a test that found it changed."""
    return shutil.copytree(shop, shop.with_name("untouched"), symlinks=True)


@pytest.fixture
def refuses(shop: Path, untouched: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Outcome]]:
    """Yield a function that runs a command in the shop, which must fail as every command fails."""
    monkeypatch.chdir(shop)
    before = snapshot(shop)

    def run(*arguments: object, code: int) -> Outcome:
        outcome = spgsurgeon(*arguments)
        assert outcome.code == code, outcome.err + outcome.out
        assert outcome.out == ""
        assert_short(outcome.err)
        assert snapshot(shop) == before, "something was written or changed"
        return outcome

    yield run
    if snapshot(shop) != before:
        shutil.rmtree(shop)
        shutil.copytree(untouched, shop, symlinks=True)


def assert_short(err: str) -> None:
    """Check that a message is one error, perhaps with a hint, for people."""
    lines = err.splitlines()
    assert [line.partition(":")[0] for line in lines] in (["error"], ["error", "hint"]), err
    assert max(map(len, lines)) <= SHORT, err
    assert "Traceback" not in err
    assert "unexpected" not in err, "nobody raised this on purpose"


def train(*arguments: str) -> tuple[str, ...]:
    return ("train", *arguments, "-o", "out")


def digits(*arguments: str) -> tuple[str, ...]:
    return ("train", *DIGITS, *arguments, "-o", "out")


def graft(*arguments: str) -> tuple[str, ...]:
    return ("graft", *arguments, "-o", "out")


def strip(*arguments: str) -> tuple[str, ...]:
    return ("strip", *arguments, "-o", "out")


def evaluate(*arguments: str) -> tuple[str, ...]:
    return ("eval", *arguments, *ON_CPU)


# What is asked: (command, exit code, words that the message has to say).
CASES: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    # naming a model
    "missing file": (graft("missing.safetensors"), 2, ("missing.safetensors", "hint: MODEL is timm/NAME")),
    "a bare name of both libraries": (("inspect", "resnet18"), 2, ("timm/resnet18", "torchvision/resnet18")),
    "a name nobody has": (graft("timm/test_resnett"), 5, ("'test_resnett'", "'timm/test_resnet'")),
    "a torchvision name nobody has": (graft("tv/resnet51"), 5, ("'resnet51'", "did you mean")),
    "a tag nobody has": (graft("torchvision/resnet18.V9"), 5, ("'V9'", "IMAGENET1K_V1")),
    "random weights for a folder": (graft("better", "--random-weights"), 2, ("by name", "better")),
    # files that are no weights, or not all of them
    "text": (("inspect", "text.txt"), 2, ("text.txt is not a weights file", ".safetensors")),
    "text called weights": (("inspect", "text.pth"), 1, ("text.pth", "does not begin like a weights file")),
    "empty file": (graft("empty.pth", *ARCH), 1, ("empty.pth is damaged: it is empty", "download it again")),
    "picture": (("inspect", "picture.png"), 2, ("picture.png is not a weights file",)),
    "truncated safetensors": (
        graft("cut.safetensors", *ARCH),
        1,
        ("cut.safetensors is damaged: it is cut", "again"),
    ),
    "truncated pickle": (graft("cut.pt", *ARCH), 1, ("cut.pt is damaged", "cut off", "again")),
    "pickle of os.system": (("inspect", "evil.pth"), 4, (f"{os.name}.system", "nothing in it was run")),
    "grafting a pickle of os.system": (graft("evil.pth", *ARCH), 4, (f"{os.name}.system",)),
    "bare pickle of os.system": (("inspect", "evil.pkl"), 4, (f"{os.name}.system",)),
    "folder of something": (("inspect", "mine"), 2, ("mine is not a model folder", "hint: give a grafted folder")),
    "NaN": (graft("nan.pth", *ARCH), 1, ("NaN or infinity", "fc.bias")),
    "training NaN": (digits("nan.pth", *ARCH), 1, ("NaN or infinity", "fc.bias")),
    # architectures
    "weights of nothing known": (graft("stranger.pth"), 5, ("stranger.pth holds 1 tensors, which fit no", "--arch")),
    "weights of either of two": (
        graft("twin.pth"),
        5,
        ("fits 2 architectures alike", "timm/test_efficientnet_gn, timm/test_efficientnet_ln", "with --arch"),
    ),
    "weights without their head": (graft("headless.pth"), 5, ("timm/test_resnet", "--num-classes")),
    "another architecture": (
        graft("better/model.pt", "--arch", "timm/test_vit"),
        5,
        ("does not fit timm/test_vit", "--arch"),
    ),
    "an architecture nobody has": (graft("better/model.pt", "--arch", "timm/test_resnett"), 5, ("'timm/test_resnet'",)),
    "an architecture of both": (graft("better/model.pt", "--arch", "resnet18"), 5, ("--arch timm/resnet18",)),
    "--arch for a folder": (graft("better", *ARCH), 2, ("--arch", "config.json")),
    # data
    "training on other classes": (
        train("better", *FOLDER, "data.path=data"),
        2,
        ("data/train has 2 classes, better has 10", "--num-classes 2 gives it a new, untrained head"),
    ),
    "evaluation on other classes": (
        evaluate("better", "--data", "data"),
        2,
        ("data/val has 2 classes, better has 10", "hint: score it on data with the classes"),
    ),
    "a folder without images": (train(*TINY, *FOLDER, "data.path=no images"), 2, ("no images/train", "<class>")),
    "a folder without classes": (train(*TINY, *FOLDER, "data.path=no classes"), 2, ("no classes/train", "<class>")),
    "a folder without its split": (train(*TINY, *FOLDER, "data.path=data", "data.train=trian"), 2, ("'train'",)),
    "no data there": (train(*TINY, *FOLDER, "data.path=elsewhere"), 2, ("elsewhere does not exist", "data.path")),
    "fewer images than a batch": (
        train(*TINY, *FOLDER, "data.path=data", "training.batch_size=64"),
        2,
        ("data/train has 4 samples", "training.batch_size"),
    ),
    "unknown split of the digits": (
        evaluate("better", "--data", "digits", "--split", "dev"),
        2,
        ("'dev'", "train, val"),
    ),
    "unknown split of a folder": (evaluate("better", "--data", "data", "--split", "vla"), 2, ("'vla'", "'val'")),
    "unknown data": (evaluate("better", "--data", "digit"), 2, ("'digit'", "'digits'")),
    "data that is no folder": (evaluate("better", "--data", "data/nothing"), 2, ("there is no folder data/nothing",)),
    "data without its folder": (evaluate("better", "--data", "torch/cifar10"), 2, ("torch/cifar10", "--data-path")),
    # recipes
    "unknown recipe": (train("better", "--recipe", "digits-dropuot"), 2, ("'digits-dropuot'", "'digits-dropout'")),
    "no recipe": (train("better"), 2, ("no recipe", "spgsurgeon recipes ls")),
    "no model": (train("--recipe", "digits-dropout"), 2, ("names a model",)),
    "unknown key": (digits("better", "training.epohcs=3"), 2, ("training.epohcs", "'epochs'")),
    "an image size that the model can't take": (
        (*TINY_VIT, *DIGITS, "data.image_size=33", "-o", "out"),
        2,
        ("data.image_size: the model can't take images of 33 x 33 pixels", "leave it out"),
    ),
    "batch size zero": (digits("better", "training.batch_size=0"), 2, ("training.batch_size: 0", "1 or more")),
    "rate one in a recipe": (digits("better", "trp.rate=1.0"), 2, ("trp.rate: 1.0", "less than 1")),
    "unknown optimizer": (digits("better", "training.optimizer.name=sdg"), 2, ("'sdg'", "'sgd'")),
    "two models": (digits("better", "base"), 2, ("one MODEL at most", "better and base", "KEY=VALUE")),
    "an override without a value": (digits("better", "training.epochs"), 2, ("training.epochs", "KEY=VALUE")),
    "a recipe that contradicts the graft": (
        digits("grafted", "trp.rate=0.5"),
        2,
        ("trp.rate is 0.5, grafted was 0.2",),
    ),
    # options
    "rate one": (graft("better", "--rate", "1.0"), 2, ("rate: 1.0", "less than 1")),
    "rate below zero": (graft("better", "--rate", "-0.1"), 2, ("rate: -0.1", "0 or more")),
    "no replicas": (graft("better", "--replicas", "0"), 2, ("replicas: 0 is refused",)),
    "unknown kind of replica": (
        graft("better", "--trp", "droput"),
        2,
        ("kind of replica 'droput'", "'dropout'"),
    ),
    "unknown weights": (
        strip("run", "--weights", "average"),
        2,
        ("holds ema or raw weights, not 'average'", "--weights"),
    ),
    "no average there": (strip("run", "--weights", "ema"), 2, ("no moving average", "raw")),
    "unknown format": (strip("run", "--export", "onxn"), 2, ("'onxn'", "'onnx'")),
    "opset out of range": (strip("run", "--export", "onnx", "--opset", "3"), 2, ("opset 3", "18 to 23")),
    "opset without ONNX": (strip("run", "--opset", "18"), 2, ("--export onnx",)),
    "several formats in one file": (("strip", "run", "-o", "out.onnx", "--export", "pt"), 2, ("out.onnx", "a folder")),
    "unknown device": (("eval", "better", "--data", "digits", "--device", "gpu"), 2, ("'gpu'", "cuda")),
    "unknown device in a recipe": (digits("better", "training.device=gpu"), 2, ("'gpu'", "cuda")),
    "unknown precision": (evaluate("better", "--data", "digits", "--precision", "f16"), 2, ("'f16'", "float16")),
    "unknown verb": (("stripp", "run"), 2, ("'stripp'", "'strip'")),
    "unknown option": (graft("better", "--rates", "0.1"), 2, ("--rates", "--rate")),
    "no output": (("graft", "better"), 2, ("--output", "spgsurgeon graft --help")),
    # grafted folders and runs
    "stripping what is not grafted": (strip("better"), 2, ("better is not grafted",)),
    "stripping a file": (strip("better/model.pt"), 2, ("holds no replicas", "spgsurgeon graft")),
    "stripping nothing": (strip("missing"), 2, ("there is no missing", "grafted folder")),
    "stripping data": (strip("data"), 2, ("data is not a model folder",)),
    "grafting twice": (graft("grafted"), 2, ("grafted already", "strip it first")),
    "changed base weights": (strip("changed"), 1, ("changed/model.safetensors",)),
    "inspecting changed weights": (("inspect", "changed"), 1, ("changed/model.safetensors",)),
    "training changed weights": (digits("changed"), 1, ("changed/model.safetensors",)),
    "changed replicas": (strip("changed replicas"), 1, ("changed replicas/temporary.safetensors",)),
    "a file is gone": (strip("lacking"), 1, ("lacking", "temporary.safetensors is missing")),
    "a garbled manifest": (("inspect", "garbled"), 1, ("garbled/graft.json is damaged",)),
    "changed optimizer": (("train", "-o", "changed run", "--resume"), 1, ("optimizer.safetensors",)),
    "resuming what is no run": (("train", "-o", "better", "--resume"), 2, ("not a run folder", "recipe.yaml")),
    "resuming by another recipe": (
        ("train", "grafted", "--recipe", "digits-dropout", "-o", "run", "--resume"),
        2,
        ("recipe differs", "training.epochs"),
    ),
    "reporting nothing": (("report", "missing", "-o", "out"), 2, ("missing does not exist", "spgsurgeon train")),
    "reporting a file": (("report", "text.txt", "-o", "out"), 2, ("text.txt is a file",)),
    "reporting a model": (("report", "better", "-o", "out"), 2, ("better is not a run folder", "spgsurgeon train")),
    "reporting a checkpoint": (("report", "run/best", "-o", "out"), 2, ("run/best is not a run folder",)),
    "reporting no run": (("report", "-o", "out"), 2, ("RUN", "spgsurgeon report --help")),
    "reporting a run twice": (("report", "run", "./run", "-o", "out"), 2, ("more than once",)),
    # outputs
    "grafting over something": (("graft", "better", "-o", "grafted"), 2, ("grafted exists", "--force")),
    "training over something": (("train", "grafted", *DIGITS, "-o", "run"), 2, ("run exists", "--force")),
    "stripping over something": (("strip", "run", "-o", "better"), 2, ("better exists", "--force")),
    "a demo over something": (("demo", "-o", "better"), 2, ("better exists", "--force")),
    "a recipe over something": (("recipes", "cp", "digits-dropout", "text.txt"), 2, ("text.txt exists", "--force")),
    "forcing a graft over a thesis": (("graft", "better", "-o", "mine", "--force"), 2, ("mine is not replaced",)),
    "forcing a strip over a thesis": (("strip", "run", "-o", "mine", "--force"), 2, ("mine is not replaced",)),
    "forcing a run over a thesis": (
        ("train", "grafted", *DIGITS, "-o", "mine", "--force"),
        2,
        ("mine is not replaced",),
    ),
    "forcing a demo over a thesis": (("demo", "-o", "mine", "--force"), 2, ("mine is not replaced",)),
    "a report over something": (("report", "run", "-o", "better"), 2, ("better exists", "--force")),
    "forcing a report over a thesis": (("report", "run", "-o", "mine", "--force"), 2, ("mine is not replaced",)),
    "reporting into the input": (("report", "run", "-o", "run/report"), 2, ("overwrite the input run",)),
    "a folder over a file": (("graft", "better", "-o", "text.txt", "--force"), 2, ("text.txt is a file",)),
    "grafting into the input": (("graft", "better", "-o", "better/grafted"), 2, ("overwrite the input better",)),
    "grafting onto the input": (("graft", "better", "-o", "better", "--force"), 2, ("overwrite the input better",)),
    "grafting around the input": (("graft", "better", "-o", ".", "--force"), 2, ("overwrite the input better",)),
    "stripping into the input": (("strip", "run", "-o", "run/better"), 2, ("overwrite the input run",)),
    "training into the input": (
        ("train", "grafted", *DIGITS, "-o", "grafted/run"),
        2,
        ("overwrite the input grafted",),
    ),
    "training onto the input": (
        ("train", "grafted", *DIGITS, "-o", "grafted", "--force"),
        2,
        ("overwrite the input grafted",),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused(case: str, refuses: Callable[..., Outcome], shop: Path) -> None:
    command, code, words = CASES[case]
    err = refuses(*command, code=code).err
    for word in words:
        assert word in err, err
    assert not (shop / "canary").exists()


def test_the_canary_would_sing(shop: Path, tmp_path: Path) -> None:
    data = (shop / "evil.pkl").read_bytes()
    pickle.loads(data.replace(str(shop / "canary").encode(), str(shop / "canarY").encode()))
    (shop / "canarY").unlink()


def test_every_fault_of_a_recipe_is_named_with_its_line(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shop)
    before = snapshot(shop)
    outcome = spgsurgeon("train", "better", "--recipe", "faulty.yaml", "-o", "out")
    assert outcome.code == 2
    assert outcome.err.splitlines()[:2] == [
        "error: faulty.yaml:3: training.epohcs: unknown key, did you mean 'epochs'?",
        "       faulty.yaml:4: training.batch_size: 0 is refused, it must be 1 or more",
    ]
    assert snapshot(shop) == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    "command", [digits("better", "training.device=cuda"), ("eval", "better", "--data", "digits", "--device", "cuda")]
)
def test_a_device_that_is_not_there(command: tuple[str, ...], refuses: Callable[..., Outcome]) -> None:
    assert "no device 'cuda' here\nhint: device=auto" in refuses(*command, code=2).err


# Pretrained weights without a network


def test_timm_weights_without_a_network(
    refuses: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    err = refuses("graft", "timm/resnet18", "-o", "out", code=1).err
    assert "the weights of timm/resnet18 are not in the cache and could not be downloaded" in err
    assert "hint: check the network" in err


def test_torchvision_weights_without_a_network(shop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def no_network(*_: object, **__: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.chdir(shop)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", no_network)
    before = snapshot(shop)
    outcome = spgsurgeon("graft", "torchvision/resnet18", "-o", "out")
    assert (outcome.code, outcome.out) == (1, "")
    downloading, error, hint = outcome.err.splitlines()
    assert downloading.startswith("Downloading: ")
    assert error.startswith("error: the weights ")
    assert error.endswith("are not in the cache and could not be downloaded: <urlopen error no network>")
    assert hint.startswith("hint: check the network")
    assert snapshot(shop) == before


# An image that can't be read


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_is_named_and_the_run_goes_on_once_it_is_gone(workers: int, tmp_path: Path) -> None:
    data, run = make_image_folder(tmp_path / "data"), tmp_path / "run"
    bad = data / "train" / "class0001" / "1.png"
    good = bad.read_bytes()
    bad.write_bytes(good[:40])
    before = snapshot(data)
    outcome = spgsurgeon("train", *TINY, *FOLDER, f"data.path={data}", f"data.workers={workers}", "-o", run, "-q")
    assert (outcome.code, outcome.out) == (1, "")
    assert_short(outcome.err)
    assert f"can't use {bad}" in outcome.err
    assert "repair it and run the command again" in outcome.err
    assert snapshot(data) == before

    bad.write_bytes(good)
    resumed = succeed("train", "-o", run, "--resume", "--json").document
    assert resumed["steps"] == 2 * 10


def test_an_unreadable_picture_in_an_evaluation_is_named(shop: Path, tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "data", splits=("val",), classes=10, each=1)
    bad = data / "val" / "class0003" / "0.png"
    bad.write_bytes(b"no image")
    outcome = spgsurgeon("eval", shop / "better", "--data", data, *ON_CPU)
    assert (outcome.code, outcome.out) == (1, "")
    assert_short(outcome.err)
    assert str(bad) in outcome.err


# A full disk


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_disk_for_safetensors(*_: object, **__: object) -> None:
    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


FULL = {
    "graft": ("graft", "better", "-o", "out"),
    "graft over": ("graft", "better", "-o", "grafted", "--force"),
    "strip": ("strip", "run", "-o", "out", "--export", "safetensors", "--export", "pt"),
    "strip over": ("strip", "run", "-o", "better", "--force"),
    "train": ("train", "grafted", *DIGITS, "-o", "out"),
    "train over": ("train", "grafted", *DIGITS, "-o", "run", "--force"),
}


@pytest.mark.parametrize("name", FULL)
def test_a_disk_that_is_full_at_the_end_leaves_nothing_behind(
    name: str, refuses: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", full_disk)
    err = refuses(*FULL[name], code=1).err
    assert "disk full" in err
    assert "hint: free some space" in err


@pytest.mark.parametrize(
    ("what", "call", "failure"),
    [
        ("weights", "safetensors.torch.serialize_file", full_disk_for_safetensors),
        ("description", "pathlib.Path.write_text", full_disk),
    ],
)
@pytest.mark.parametrize("name", ["graft", "graft over", "strip", "strip over"])
def test_a_disk_that_is_full_on_the_way_leaves_nothing_behind(
    name: str,
    what: str,
    call: str,
    failure: Callable[..., None],
    refuses: Callable[..., Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(call, failure)
    assert "disk full" in refuses(*FULL[name], code=1).err


@pytest.mark.slow
def test_an_onnx_file_and_its_proof_come_together_or_not_at_all(
    refuses: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    replace = os.replace

    def full_for_the_model(source: Path, target: Path) -> None:
        if Path(target).name == "out.onnx":
            full_disk()
        replace(source, target)

    monkeypatch.setattr(os, "replace", full_for_the_model)
    assert "disk full" in refuses("strip", "run", "-o", "out.onnx", code=1).err


def test_a_full_disk_leaves_no_recipe_behind(refuses: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", full_disk)
    assert "x.yaml" in refuses("recipes", "cp", "digits-dropout", "x.yaml", code=1).err


# --force


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        (("graft", "better", "-o", "again"), "graft.json"),
        (("strip", "run", "-o", "again"), "README.md"),
        (("train", "grafted", *DIGITS, "-o", "again"), "recipe.yaml"),
        (("strip", "run", "-o", "again.safetensors"), ""),
        (("recipes", "cp", "digits-dropout", "again.yaml"), ""),
    ],
    ids=["graft", "strip", "train", "strip to a file", "recipe"],
)
def test_force_replaces_the_whole_output(
    arguments: tuple[str, ...], kept: str, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(shop)
    output = Path(arguments[-1])
    before = snapshot(shop)
    if kept:
        output.mkdir()
        (output / "config.json").write_text("{}")
        (output / "older").write_text("older")
        record(output, output.name)
    else:
        output.write_text("older")
    assert spgsurgeon(*arguments).code == 2
    succeed(*arguments, "--force")
    if kept:
        assert (output / kept).is_file()
        assert not (output / "older").exists()
        shutil.rmtree(output)
    else:
        assert output.read_bytes() != b"older"
        output.unlink()
        (shop / "recipe.schema.json").unlink(missing_ok=True)  # which `recipes cp` puts beside its copy
    assert snapshot(shop) == before, "and nothing else"
