"""The command line through its real entry point: help, streams, JSON documents, and whole chains of commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
import timm
import torch
import typer
from command_line import DIGITS, TINY, Outcome, make_image_folder, snapshot, spgsurgeon, succeed
from safetensors.torch import load_file
from torch import nn

import spgsurgeon as package
from spgsurgeon.checkpoint.hashing import content_hash
from spgsurgeon.checkpoint.ownership import RECORD
from spgsurgeon.cli.app import VERBS as LISTED
from spgsurgeon.cli.app import application
from spgsurgeon.cli.terminal.console import Verbosity, working
from spgsurgeon.data.sources.opening import open_source

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "torchvision", "timm", "numpy", "onnx", "onnxruntime", "sklearn", "matplotlib", "jinja2")


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the path and the parser's object of every verb."""
    if not hasattr(command, "commands"):
        yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from leaves(below, (*path, name))


VERBS = dict(leaves(typer.main.get_command(application())))


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run this Python from the source tree, as a process of its own."""
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False, **options
    )


# Help


def test_the_list_of_verbs_says_what_their_own_help_does() -> None:
    whole = typer.main.get_command(application()).commands
    listed = typer.main.get_command(application(listed=True)).commands
    assert {name: verb.get_short_help_str(200) for name, verb in whole.items()} == {
        name: verb.get_short_help_str(200) for name, verb in listed.items()
    }


def test_a_verb_imports_no_other() -> None:
    code = "import sys; from spgsurgeon.cli.app import run; run(sys.argv[1:]); "
    code += "print(*(name for name in sys.modules if name.startswith('spgsurgeon.cli.')), file=sys.stderr)"
    for arguments, verbs in ((["--help"], set()), (["diff", "--help"], {"diff"})):
        loaded = {name.rpartition(".")[2] for name in python("-c", code, *arguments).stderr.split()}
        assert loaded & {*LISTED} == verbs


def test_all_verbs_are_there() -> None:
    assert {" ".join(path) for path in VERBS} >= {
        *("inspect", "graft", "train", "strip", "eval", "diff", "demo", "doctor", "report", "compare", "bench"),
        *(f"recipes {verb}" for verb in ("ls", "show", "cp", "check", "diff", "schema")),
    }


def test_help_and_version_import_nothing_heavy() -> None:
    calls = [[*path, "--help"] for path in [(), ("recipes",), *VERBS]] + [["--version"], ["-h"]]
    code = f"""
import sys
from spgsurgeon.cli.app import run
codes = [run(call) for call in {calls!r}]
print("result:", codes, sorted(set(sys.modules) & {set(HEAVY)!r}))
"""
    shown = python("-c", code)
    assert shown.stderr == ""
    assert shown.stdout.splitlines()[-1] == f"result: {[0] * len(calls)} []"


def test_the_version_of_the_process_and_of_the_package_agree() -> None:
    shown = python("-m", "spgsurgeon", "--version")
    assert (shown.returncode, shown.stdout, shown.stderr) == (0, f"spgsurgeon {package.__version__}\n", "")


def on_the_way_out(statement: str) -> subprocess.CompletedProcess[str]:
    """Run a command that does this after its last line."""
    code = f"""
import atexit, gc, signal, sys
from spgsurgeon.cli.app import main
atexit.register(lambda: {statement})
sys.argv = ["spgsurgeon", "--version"]
main()
"""
    return python("-c", code)


def test_the_process_leaves_without_looking_through_every_object() -> None:
    assert on_the_way_out("print('frozen:', gc.get_freeze_count() > 1000)").stdout.endswith("\nfrozen: True\n")


def test_a_signal_on_the_way_out_leaves_no_traceback() -> None:
    left = on_the_way_out("signal.raise_signal(signal.SIGINT)")
    assert (left.returncode, left.stderr) == (-signal.SIGINT, "")


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = f"import sys, spgsurgeon; dir(spgsurgeon); print(set(sys.modules) & {set(HEAVY)!r})"
    assert python("-c", code).stdout == "set()\n"


@pytest.mark.parametrize("path", VERBS, ids=" ".join)
def test_the_help_of_a_verb_has_an_example_that_parses(path: tuple[str, ...]) -> None:
    command = VERBS[path]
    examples = re.findall(r"`spgsurgeon (.+?)`", command.help)
    assert examples, f"{' '.join(path)} --help shows no example"
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[: len(path)]) == path
        command.make_context(path[-1], words[len(path) :])  # raises where the parser refuses it


@pytest.mark.parametrize("arguments", [(), ("recipes",)])
def test_without_a_verb_there_is_help_and_no_empty_error(arguments: tuple[str, ...]) -> None:
    outcome = spgsurgeon(*arguments)
    assert outcome.code == 2
    assert "Usage: spgsurgeon" in outcome.out
    assert outcome.err == ""


# The whole chain, on the built-in digits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("chain")


@pytest.fixture(scope="module")
def chain(folder: Path) -> dict[str, dict[str, Any]]:
    """Run base, inspect, graft, train, strip, eval with --json; -v, so that a warning anywhere is an error."""
    base, grafted, run, better = (folder / name for name in ("base", "grafted", "run", "better"))
    exports = [word for kind in ("safetensors", "onnx", "pt") for word in ("--export", kind)]
    on_digits = ("--data", "digits", "--workers", 0, "--device", "cpu", "--batch-size", 50)
    commands: dict[str, tuple[object, ...]] = {
        "base": ("train", *TINY, *DIGITS, "trp.kind=none", "training.optimizer.lr=0.1", "-o", base),
        "inspect": ("inspect", base),
        "graft": ("graft", base, "-o", grafted),
        "inspect grafted": ("inspect", grafted, "--tensors"),
        "dry run": ("train", grafted, *DIGITS, "-o", run, "--dry-run"),
        "train": ("train", grafted, *DIGITS, "-o", run),
        "strip": ("strip", run, "-o", better, "--reference", base, *exports),
        "eval base": ("eval", base, *on_digits),
        "eval run": ("eval", run, *on_digits),
        "eval": ("eval", better, *on_digits),
    }
    documents = {}
    for name, command in commands.items():
        outcome = succeed(*command, "--json", "-v", "-q")
        assert outcome.err == "", f"{name} --json says something on stderr"
        documents[name] = outcome.document
        if name == "dry run":
            assert not run.exists()
    return documents


def assert_keys(document: dict[str, Any], keys: str) -> None:
    assert set(keys.split()) <= set(document)


def test_documents_have_the_keys_of_the_contract(chain: dict[str, dict[str, Any]]) -> None:
    inspected = (
        "source format producer library architecture candidates head parameters tensors dtypes prefixes content_hash "
        "unsafe non_finite sites"
    )
    for document in (chain["inspect"], chain["graft"]["base"]):
        assert_keys(document, inspected)
        assert_keys(document["head"], "module type width classes")
        assert_keys(document["sites"]["dropout"], "module side width temporary_parameters")
    assert_keys(chain["graft"], "output base trp temporary_parameters proof")
    for name in ("base", "train"):
        assert_keys(chain[name], "run original best last steps content_hash")
    assert_keys(chain["dry run"], "model steps learning_rates temporary_parameters estimated_memory_bytes")
    assert_keys(chain["strip"], "outputs proof proven")
    for output in chain["strip"]["outputs"]:
        assert_keys(output, "path format content_hash largest_difference")
    assert_keys(chain["eval"], "top1 top5 samples images_per_second")


def test_the_chain_learns_and_proves(chain: dict[str, dict[str, Any]], folder: Path) -> None:
    for metric in ("top1", "top5", "loss"):
        assert chain["train"]["original"][metric] == chain["base"]["best"][metric], "the same weights and code"
    assert chain["train"]["best"]["top1"] > chain["base"]["original"]["top1"] + 10
    assert chain["dry run"]["steps"] == chain["train"]["steps"] == 12
    assert chain["graft"]["temporary_parameters"] == 3 * (96 * 96 + 96)
    assert all(chain["graft"]["proof"].values())
    assert chain["strip"]["proven"]
    assert all(chain["strip"]["proof"].values())
    assert set(chain["strip"]["proof"]) >= {"layout_is_the_references", "onnx_agrees", "eval_outputs_equal"}
    assert {path.name for path in (folder / "better").iterdir()} == {
        *("model.safetensors", "model.onnx", "model.pt", "config.json", "README.md", RECORD)
    }


def test_hashes_follow_the_weights_through_the_chain(chain: dict[str, dict[str, Any]], folder: Path) -> None:
    base = chain["base"]["content_hash"]
    assert chain["inspect"]["content_hash"] == chain["graft"]["base"]["content_hash"] == base
    assert chain["inspect grafted"]["content_hash"] == base
    trained = chain["train"]["content_hash"]
    assert {output["content_hash"] for output in chain["strip"]["outputs"]} == {trained} != {base}
    written = load_file(folder / "better" / "model.safetensors")
    assert content_hash(written) == trained
    original = load_file(folder / "base" / "best" / "model.safetensors")
    assert {key: (value.shape, value.dtype) for key, value in written.items()} == {
        key: (value.shape, value.dtype) for key, value in original.items()
    }


def test_scores_are_the_same_wherever_they_are_computed(chain: dict[str, dict[str, Any]]) -> None:
    for metric in ("top1", "top5", "loss"):
        assert chain["eval base"][metric] == chain["base"]["best"][metric]
        assert chain["eval"][metric] == chain["eval run"][metric] == chain["train"]["best"][metric]
    assert chain["eval"]["samples"] == 500
    assert chain["eval"]["image_size"] == [32, 32], "the stripped folder remembers what it was trained at"


def test_other_tools_get_the_same_scores(chain: dict[str, dict[str, Any]], folder: Path) -> None:
    model = timm.create_model(f"local-dir:{folder / 'better'}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    digits = open_source("digits", None, "val")
    pictures, labels = zip(*(digits.read(index) for index in range(len(digits))), strict=True)
    images = torch.stack([transform(picture) for picture in pictures])
    with torch.no_grad():
        logits = model(images).numpy()

    def top1(logits: Any) -> float:
        return 100 * float((logits.argmax(axis=1) == np.array(labels)).mean())

    assert top1(logits) == pytest.approx(chain["eval"]["top1"])
    session = onnxruntime.InferenceSession(folder / "better" / "model.onnx")
    assert top1(session.run(["logits"], {"images": images.numpy()})[0]) == pytest.approx(chain["eval"]["top1"])
    state = torch.load(folder / "better" / "model.pt", weights_only=True)
    plain = timm.create_model("test_resnet", num_classes=10)
    plain.load_state_dict(state)
    with torch.no_grad():
        assert np.array_equal(plain.eval()(images).numpy(), logits)


@pytest.mark.parametrize("name", ["inspect", "inspect grafted"])
def test_the_next_step_that_inspect_names_is_a_command(name: str, chain: dict[str, dict[str, Any]]) -> None:
    tool, verb, *rest = shlex.split(chain[name]["next"])
    assert tool == "spgsurgeon"
    context = VERBS[(verb,)].make_context(verb, rest)
    assert chain[name]["source"] in str(context.params)


def test_the_next_step_repeats_what_opened_the_model(chain: dict[str, dict[str, Any]], folder: Path) -> None:
    bare = folder / "better" / "model.pt"
    found = succeed("inspect", bare, "--arch", "timm/test_resnet", "--json").document
    assert found["next"] == f"spgsurgeon graft {bare} --arch timm/test_resnet -o grafted/"
    assert found["content_hash"] == chain["train"]["content_hash"]
    assert succeed("inspect", *TINY, "--json").document["next"] == f"spgsurgeon graft {' '.join(TINY)} -o grafted/"


# The same in short for torchvision


@pytest.mark.slow
def test_the_chain_of_a_torchvision_model(tmp_path: Path) -> None:
    data = make_image_folder(tmp_path / "data")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{path: {data}, image_size: 64, augment: {{crop: resize}}, workers: 0}}\n"
        "training: {epochs: 1, batch_size: 4, device: cpu, optimizer: {lr: 1.0e-6}}\n"
    )
    base, run, better = tmp_path / "base", tmp_path / "run", tmp_path / "better"
    model = ("torchvision/shufflenet_v2_x0_5", "--random-weights")
    succeed("train", *model, "--recipe", recipe, "trp.kind=none", "-o", base)
    assert succeed("inspect", base, "--json").document["library"] == "torchvision"
    trained = succeed("train", base, "--recipe", recipe, "-o", run, "--json").document
    assert trained["steps"] == 1
    stripped = succeed("strip", run, "-o", better, "--export", "pt", "--export", "safetensors", "--json").document
    assert stripped["proven"]
    scored = succeed("eval", better, "--data", data, "--workers", 0, "--device", "cpu", "--json").document
    assert {metric: scored[metric] for metric in ("top1", "loss")} == {
        metric: trained["best"][metric] for metric in ("top1", "loss")
    }
    import torchvision

    plain = torchvision.models.shufflenet_v2_x0_5(num_classes=2)
    plain.load_state_dict(torch.load(better / "model.pt", weights_only=True))
    assert content_hash(plain.state_dict()) == trained["content_hash"]


# Streams


@pytest.fixture(scope="module")
def spoken(folder: Path) -> dict[str, Outcome]:
    """Run a retraining three times: as people do, with -q and with --json."""
    train = ("train", *TINY, *DIGITS, "data.eval=test", "-o")
    return {
        "plain": succeed(*train, folder / "plain run"),
        "quiet": succeed(*train, folder / "quiet run", "-q"),
        "json": succeed(*train, folder / "json run", "--json"),
    }


def test_data_goes_to_stdout_and_progress_and_notes_to_stderr(spoken: dict[str, Outcome]) -> None:
    plain = spoken["plain"]
    assert re.search(r"^epoch +1 .*top-1", plain.err, re.MULTILINE)
    assert "note: random weights (seed 0)" in plain.err
    assert "epoch" not in plain.out
    assert "note:" not in plain.out
    assert re.search(r"^original +\d", plain.out, re.MULTILINE)
    assert re.search(r"^run +.*plain run$", plain.out, re.MULTILINE), "no padding, no wrapping in a pipe"


def test_quiet_leaves_the_data_only(spoken: dict[str, Outcome]) -> None:
    assert spoken["quiet"].err == ""
    assert spoken["quiet"].out.replace("quiet", "plain") == spoken["plain"].out


def test_json_is_one_document_and_keeps_the_notes(spoken: dict[str, Outcome]) -> None:
    assert re.search(r"^epoch +1 .*top-1", spoken["json"].err, re.MULTILINE), "how it goes is no part of the document"
    assert "note:" not in spoken["json"].err
    assert spoken["json"].document["notes"] == ["random weights (seed 0)"]


def test_a_plan_says_what_would_happen(folder: Path) -> None:
    before = snapshot(folder)
    outcome = succeed("train", *TINY, *DIGITS, "cold_start.epochs=1", "-o", folder / "planned", "--dry-run")
    assert re.search(r"^steps +24, 12 an epoch$", outcome.out, re.MULTILINE)
    assert re.search(
        r"^cold start +at most 12 of them, which fill the optimizer.s moments and move no weight$",
        outcome.out,
        re.MULTILINE,
    )
    assert snapshot(folder) == before
    plain = succeed("train", *TINY, *DIGITS, "trp.kind=none", "--dry-run")
    cold = r"^cold start +at most 12 of them, which fill the optimizer's moments and move no weight$"
    assert re.search(cold, outcome.out, re.MULTILINE)
    assert re.search(r"^replicas +none: plain retraining, the control$", plain.out, re.MULTILINE)


def test_only_the_first_process_of_a_run_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert spgsurgeon("recipes", "ls") == Outcome(0, "", "")
    assert spgsurgeon("recipes", "check", "missing") == Outcome(2, "", "")


def test_recipes_through_the_command_line(tmp_path: Path) -> None:
    listed = succeed("recipes", "ls", "--json").document["recipes"]
    assert {"name", "title", "path", "data", "model", "replicas", "size"} <= set(listed[0])
    lines = {line.split()[0]: line for line in succeed("recipes", "ls").out.splitlines()}
    assert lines["cifar10-few"].split() == ["cifar10-few", "cifar10", "resnet18", "3", "dropout", "64"]
    assert {row["name"] for row in listed} | {"recipe"} == lines.keys()
    assert max(map(len, lines.values())) <= 100
    assert succeed("recipes", "schema", "--json").document == json.loads(succeed("recipes", "schema").out)
    differing = succeed("recipes", "diff", "digits-dropout", "cifar10-few").out
    assert re.search(r"^data\.source +digits +folder$", differing, re.MULTILINE)
    copied = Path(succeed("recipes", "cp", "digits-dropout", tmp_path, "--json").document["path"])
    assert succeed("recipes", "check", copied, "--json").document == {"recipe": str(copied), "valid": True}
    shown = succeed("recipes", "show", copied, "training.epochs=3")
    assert succeed("recipes", "show", copied, "training.epochs=3", "--json").document == {"recipe": shown.out}
    copied.write_text(shown.out)
    assert succeed("recipes", "show", copied).out == shown.out, "what is shown is a recipe again"


def test_what_a_library_prints_stays_out_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(recipe: str) -> None:
        print("a library says hello")

    monkeypatch.setattr("spgsurgeon.commands.recipes.check_recipe", check)
    outcome = succeed("recipes", "check", "x.yaml", "--json")
    assert outcome.document == {"recipe": "x.yaml", "valid": True}
    assert outcome.err == "a library says hello\n"


# Failures


def test_a_failure_is_an_error_and_a_hint_on_stderr_and_an_exit_code() -> None:
    failed = python("-m", "spgsurgeon", "recipes", "show", "digits-dropuot")
    assert failed.returncode == 2
    assert failed.stdout == ""
    error, hint = failed.stderr.splitlines()
    assert error == "error: no recipe 'digits-dropuot'"
    assert hint.startswith("hint: did you mean 'digits-dropout'")


def test_the_error_document() -> None:
    outcome = spgsurgeon("inspect", "missing.pth", "--json")
    assert outcome.err == ""
    assert outcome.code == outcome.document["exit_code"] == 2
    error = outcome.document["error"]
    assert (error["kind"], error["code"]) == ("usage", "usage")
    assert "missing.pth" in error["message"]
    assert "MODEL is" in error["hint"]


def test_a_mistake_of_the_command_line_is_a_document_too() -> None:
    outcome = spgsurgeon("inspect", "--json", "--tensor")
    assert outcome.code == outcome.document["exit_code"] == 2
    assert "--tensor" in outcome.document["error"]["message"]
    assert outcome.document["error"]["hint"] == "spgsurgeon inspect --help"


def test_several_faults_stand_below_each_other(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("data: {source: digits}\ntraining:\n  epohcs: 3\n  batch_size: 0\n")
    outcome = spgsurgeon("recipes", "check", recipe)
    first, second, hint = outcome.err.splitlines()
    assert first == f"error: {recipe}:3: training.epohcs: unknown key, did you mean 'epochs'?"
    assert second.lstrip() == f"{recipe}:4: training.batch_size: 0 is refused, it must be 1 or more"
    assert second.index(str(recipe)) == first.index(str(recipe))
    assert hint.startswith("hint: ")


def test_a_traceback_is_shown_when_asked_for() -> None:
    assert "Traceback" not in spgsurgeon("inspect", "missing.pth", "-v").err
    asked = spgsurgeon("inspect", "missing.pth", "-vv").err
    assert "Traceback (most recent call last)" in asked
    assert "error: there is no file or folder 'missing.pth'" in asked


@pytest.mark.parametrize(
    ("raised", "code", "words"),
    [
        (MemoryError(), 1, "error: out of memory\nhint: lower training.batch_size"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), 1, "error: out of memory\nhint:"),
        (OSError(28, "No space left on device", "x.bin"), 1, "error: the disk is full: x.bin\n"),
        (ZeroDivisionError("a\nb"), 1, "error: unexpected ZeroDivisionError: a\nhint: -vv"),
        (KeyboardInterrupt(), 130, ""),
        (BrokenPipeError(), 0, ""),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_what_nobody_raised_on_purpose(
    raised: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setattr("spgsurgeon.commands.recipes.list_recipes", fail)
    outcome = spgsurgeon("recipes", "ls")
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err.startswith(words)
    assert "Traceback" not in outcome.err


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "spgsurgeon", "recipes", "ls"]
    with os.fdopen(write, "w") as pipe:
        left = subprocess.run(command, cwd=ROOT, stdout=pipe, stderr=subprocess.PIPE, text=True, check=False)
    assert (left.returncode, left.stderr) == (0, "")


@pytest.mark.slow
def test_a_process_with_json_prints_one_document_and_nothing_else(
    folder: Path, chain: dict[str, dict[str, Any]]
) -> None:
    assert chain["strip"]["proven"]
    output = folder / "from a process.onnx"
    command = ("-m", "spgsurgeon", "strip", str(folder / "run"), "-o", str(output), "--json")
    done = python(*command)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["proof"]["onnx_agrees"]
    beside = json.loads(output.with_name(output.name + ".json").read_text())
    assert beside["proof"]["onnx_agrees"]


# In Python


def test_three_lines_in_anyones_training_loop() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    images, labels = torch.randn(6, 3, 2, 2), torch.arange(6) % 4

    grafted = package.graft(model, trp="dropout", replicas=3, rate=0.2, example=images)
    loss = package.spg_loss(grafted.train()(images), labels).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in grafted.parameters())
    stripped = package.strip(grafted)
    assert stripped is model
    assert all(torch.equal(value, before[key]) for key, value in stripped.state_dict().items())
    assert list(stripped.state_dict()) == list(before)


def test_every_public_name_is_there_and_documented() -> None:
    for name in package.__all__:
        found = getattr(package, name)
        assert found.__doc__, f"{name} has no docstring"
    assert set(dir(package)) == set(package.__all__)
    with pytest.raises(AttributeError, match="attribute grfat"):
        package.grfat  # noqa: B018


def test_load_and_inspect_take_what_the_command_line_takes(folder: Path, chain: dict[str, dict[str, Any]]) -> None:
    model = package.load(folder / "better")
    assert content_hash(model.state_dict()) == chain["train"]["content_hash"]
    assert not model.training
    assert package.inspect(str(folder / "better"))["architecture"] == "test_resnet"


def test_errors_reach_python_as_exceptions() -> None:
    with pytest.raises(package.SurgeonError, match="no file or folder") as caught:
        package.load("missing.pth")
    assert caught.value.hint


@pytest.mark.parametrize(("terminal", "quiet", "shown"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_what_takes_seconds_is_announced_on_a_terminal_only(terminal, quiet, shown, monkeypatch) -> None:
    announced = []
    fake = SimpleNamespace(status=lambda text: announced.append(text) or nullcontext())
    monkeypatch.setattr("spgsurgeon.cli.terminal.console.console", lambda stderr: fake)
    monkeypatch.setattr("spgsurgeon.cli.terminal.console.verbosity", Verbosity(quiet=quiet))
    monkeypatch.setattr("sys.stderr", SimpleNamespace(isatty=lambda: terminal))
    with working("grafting"):
        pass
    assert announced == ["grafting ..."] * shown
