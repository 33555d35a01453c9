"""Pickles that want to run something, and pickles that want to break the reader."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import audited_reading
import pytest
import torch
from command_line import spgsurgeon
from containers import CONTAINERS, GOOD, TENSOR, torch_zip
from forms import text
from gadgets import GADGETS
from hostile import PICKLES, TENSORS
from refusals import attempted, check_short

from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import SurgeonError, UnsafeInputError


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own says after reading every gadget in every form and file."""
    folder = tmp_path_factory.mktemp("audited")
    completed = subprocess.run(
        [sys.executable, audited_reading.__file__, str(folder)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    document: dict[str, Any] = json.loads(completed.stdout)
    return document


def test_every_gadget_in_every_form_and_file_is_refused_by_name(report: dict[str, Any]) -> None:
    assert len(GADGETS) == report["gadgets"] >= 300
    assert report["refused"] > 30_000
    assert report["wrong"] == []


def test_nothing_of_a_gadget_ran(report: dict[str, Any]) -> None:
    assert report["events"] == {}
    assert report["imported"] == []
    assert not report["canary"]
    assert not report["environment"]


def test_the_canary_would_sing(report: dict[str, Any]) -> None:
    assert any(event.startswith("os.system") for event in report["sings"])
    assert report["canary sings"]


@pytest.mark.slow
@pytest.mark.parametrize("container", ["a zip", "a legacy file's pickle 3"])
def test_harm_in_what_is_allowed_ends_in_a_short_message(container: str, tmp_path: Path) -> None:
    slow = []
    for name, pickled in PICKLES.items():
        path, start = CONTAINERS[container](tmp_path, pickled, 4), time.process_time()
        try:
            found = attempted(lambda path=path: read_checkpoint(path))
        except Exception as error:
            pytest.fail(f"{name}: {error!r:.300}")
        if isinstance(found, SurgeonError):
            check_short(found)
        assert isinstance(found, SurgeonError) or name not in TENSORS, name
        if time.process_time() - start > 3:
            slow.append(name)
    assert len(PICKLES) > 200
    assert slow == []


def test_a_gadget_in_bytes_or_in_a_storage_stays_what_it_is(tmp_path: Path) -> None:
    gadget = b"\x80\x02cos\nsystem\n" + text("touch canary") + b"\x85R."
    inner = torch_zip(gadget[2:-1], 2)
    tensors = {"fc.weight": torch.frombuffer(bytearray(inner), dtype=torch.uint8)}
    torch.save({"state_dict": tensors, "args": {"model": "resnet18", "blob": gadget}}, tmp_path / "outer.pth")
    checkpoint = read_checkpoint(tmp_path / "outer.pth")
    assert bytes(checkpoint.tensors["fc.weight"].numpy()) == inner
    assert checkpoint.architecture == "resnet18"


@pytest.mark.parametrize(
    "loader", ["ctorch.storage\n_load_from_bytes\n", "cpickle\nloads\n", "ctorch.jit._serialization\nload\n"]
)
def test_a_gadget_in_bytes_is_not_handed_to_a_loader(loader: str, tmp_path: Path) -> None:
    expression = loader.encode() + b"U\x10cos\nsystem\n)R.   \x85R"
    (tmp_path / "model.pth").write_bytes(torch_zip(b"}(" + text("w") + TENSOR + text("x") + expression + b"u", 2))
    with pytest.raises(UnsafeInputError, match="load"):
        read_checkpoint(tmp_path / "model.pth")


def test_a_good_file_of_this_make_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(torch_zip(GOOD, 2))
    assert read_checkpoint(tmp_path / "model.pth").tensors["fc.weight"].tolist() == [1.0, 2.0]


COMMANDS = {
    "inspect": ("inspect",),
    "graft": ("graft", "-o", "output"),
    "eval": ("eval", "--data", "digits"),
    "diff": ("diff", "good.pth"),
    "train": ("train", "--recipe", "digits-dropout", "-o", "output"),
}


@pytest.mark.parametrize("container", ["a zip, beside the weights", "a legacy file's pickle 3", "beside a config.json"])
@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_refuses_it(
    command: str, container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.pth").write_bytes(torch_zip(GOOD, 2))
    (tmp_path / "given").mkdir()
    gadget = b"cposix\nsystem\n" + text("touch canary") + b"\x85R"
    path = CONTAINERS[container](tmp_path / "given", gadget, 2)
    verb, *options = COMMANDS[command]
    outcome = spgsurgeon(verb, path.parent if container.startswith("beside") else path, *options)
    assert outcome.code == UnsafeInputError.exit_code, outcome
    assert "posix.system" in outcome.err
    assert len(outcome.err) < 1000
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["given", "good.pth"]
