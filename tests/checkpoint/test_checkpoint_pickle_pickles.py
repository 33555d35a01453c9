"""Gadget pickles: each would leave a canary file behind if anything in it ran."""

from __future__ import annotations

import datetime
import functools
import io
import os
import pickle
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spgsurgeon.checkpoint.pickle.allowlist import TORCH_GLOBALS
from spgsurgeon.checkpoint.pickle.pickles import read_pickle
from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import DamagedFileError, UnsafeInputError

FORMS = ["zip", "legacy", "bare"]


class Reduced:
    """Pickles as whatever `__reduce__` is given: (function, arguments[, state])."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def touch(canary: Path) -> Reduced:
    return Reduced(os.system, (f"touch '{canary}'",))


def program(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


GADGETS: dict[str, Callable[[Path], object]] = {
    "os.system": touch,
    "subprocess.Popen": lambda canary: Reduced(subprocess.Popen, (["touch", str(canary)],)),
    "builtins.eval": lambda canary: Reduced(eval, (program(canary),)),
    "builtins.exec": lambda canary: Reduced(exec, (program(canary),)),
    "builtins.open": lambda canary: Reduced(open, (str(canary), "w")),
    "builtins.getattr": lambda canary: Reduced(getattr, (Reduced(__import__, ("os",)), "system")),
    "runpy.run_path": lambda canary: Reduced(runpy.run_path, (str(canary.with_suffix(".py")),)),
    "torch.load": lambda canary: Reduced(torch.load, (str(canary),)),
    "torch.hub.load": lambda canary: Reduced(torch.hub.load, (str(canary.parent), "model")),
    "shutil.copy": lambda canary: Reduced(shutil.copy, (__file__, str(canary))),
    "functools.partial": lambda canary: Reduced(functools.partial, (os.system, f"touch '{canary}'")),
    "deep inside": lambda canary: {"state_dict": {"fc.weight": [(torch.Size((1,)), touch(canary))]}},
    "as a state": lambda canary: Reduced(torch.Size, ((1,),), {"state": touch(canary)}),
    "as a key": lambda canary: {touch(canary): 1},
}


def save(form: str, document: object, path: Path) -> None:
    if form == "bare":
        path.write_bytes(pickle.dumps(document, protocol=2))
    else:
        torch.save(document, path, _use_new_zipfile_serialization=form == "zip")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("gadget", GADGETS)
def test_a_gadget_is_refused_and_never_runs(gadget: str, form: str, tmp_path: Path) -> None:
    canary, path = tmp_path / "canary", tmp_path / "model.pth"
    canary.with_suffix(".py").write_text(program(canary))
    save(form, GADGETS[gadget](canary), path)
    with pytest.raises(UnsafeInputError) as refused:
        read_checkpoint(path)
    assert refused.value.details["unsafe"]
    assert not canary.exists()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("gadget", GADGETS)
def test_every_protocol_is_understood(gadget: str, protocol: int, tmp_path: Path) -> None:
    made = GADGETS[gadget](tmp_path / "canary")
    data = pickle.dumps(made, protocol=protocol, fix_imports=False)
    with pytest.raises(UnsafeInputError) as refused:
        read_pickle(io.BytesIO(data))
    if isinstance(made, Reduced) and gadget != "as a state":
        function = made.reduced[0]
        assert f"{function.__module__}.{function.__qualname__}" in refused.value.details["unsafe"]
    assert not (tmp_path / "canary").exists()


def test_the_canary_would_sing(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(GADGETS["os.system"](tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def short(text: bytes) -> bytes:
    return b"\x8c%c%s" % (len(text), text)


RAW = {
    "INST": (b"(S'true'\nios\nsystem\n.", "os.system"),
    "OBJ": (b"\x80\x02(cos\nsystem\nX\x04\x00\x00\x00trueo.", "os.system"),
    "NEWOBJ": (b"\x80\x02csubprocess\nPopen\nX\x04\x00\x00\x00true\x85\x81.", "subprocess.Popen"),
    "NEWOBJ_EX": (b"\x80\x04" + short(b"subprocess") + short(b"Popen") + b"\x93)}\x92.", "subprocess.Popen"),
    "BUILD": (b"\x80\x02ccollections\nOrderedDict\n)R}X\x01\x00\x00\x00acos\nsystem\nsb.", "os.system"),
    "EXT1": (b"\x80\x02\x82\x01)R.", "<instruction EXT1>"),
    "PERSID": (b"Pos.system\n.", "<instruction PERSID>"),
    "STACK_GLOBAL through the memo": (
        b"\x80\x04" + short(b"os") + b"\x940" + short(b"system") + b"\x940h\x00h\x01\x93" + short(b"true") + b"\x85R.",
        "os.system",
    ),
    "STACK_GLOBAL of protocol-0 strings": (b"\x80\x04S'os'\nS'system'\n\x93.", "os.system"),
    "STACK_GLOBAL of computed names": (b"\x80\x04]" + short(b"system") + b"\x93.", "<computed name>"),
    "STACK_GLOBAL of globals": (b"\x80\x04ccollections\nOrderedDict\n" + short(b"x") + b"\x93.", "<computed name>"),
    "DUP": (b"\x80\x04" + short(b"os") + b"2\x93.", "os.os"),
    "dotted names": (b"\x80\x02ccollections\nOrderedDict.__init__.__globals__\n.", "collections.OrderedDict.__init__"),
    "an odd escape": (b"\x80\x02cos\\q\nsystem\n.", "os"),
    "a broken end": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R", "os.system"),
    "a broken stack": (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85RRRRR.", "os.system"),
}


@pytest.mark.parametrize("trick", RAW)
def test_hand_made_pickles_are_refused_by_name(trick: str) -> None:
    data, name = RAW[trick]
    with pytest.raises(UnsafeInputError) as refused:
        read_pickle(io.BytesIO(data))
    assert any(found.startswith(name) for found in refused.value.details["unsafe"])


def test_the_refusal_lists_everything_and_says_little() -> None:
    data = b"\x80\x02" + b"".join(b"cevil\nf%d\n0" % n for n in range(9)) + b"N."
    with pytest.raises(UnsafeInputError, match=r"evil\.f4 and 4 more") as refused:
        read_pickle(io.BytesIO(data))
    assert refused.value.details["unsafe"] == [f"evil.f{n}" for n in range(9)]


def test_names_cannot_play_tricks_on_a_terminal() -> None:
    with pytest.raises(UnsafeInputError) as refused:
        read_pickle(io.BytesIO(b"\x80\x02cevil\n\x1b[2J\n0c" + b"x" * 9999 + b"\ny\n."))
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 1000


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x02}", b"\x80\x02X\xff\xff\xff\x7fab.", b"\x80\x02h\x00.", b"\x80\x02(u."]
)
def test_a_broken_pickle_is_damaged(data: bytes) -> None:
    with pytest.raises(DamagedFileError):
        read_pickle(io.BytesIO(data))


def test_a_stream_is_left_behind_its_first_pickle() -> None:
    stream = io.BytesIO(pickle.dumps([1, "a"]) + b"rest")
    assert read_pickle(stream) == ([1, "a"], [])
    assert stream.read() == b"rest"


def test_every_allowed_name_of_torch_is_one_that_torch_reads() -> None:
    known = set(torch._weights_only_unpickler._get_allowed_globals()) | {"torch._utils._rebuild_nested_tensor"}
    assert known >= TORCH_GLOBALS


def _with_stranger(name: str) -> bytes:
    """The pickle of a checkpoint with one object of that class beside its (empty) state dict."""
    module, _, cls = name.rpartition(".")
    stranger = f"c{module}\n{cls}\n)\x81".encode("latin-1")
    return b"\x80\x02}(" + b"X\x0a\0\0\0state_dict}" + b"X\x04\0\0\0when" + stranger + b"u."


@pytest.mark.parametrize(
    "name",
    [
        "datetime.datetime",
        "collections.deque",
        "mmengine.logging.history_buffer.HistoryBuffer",
        "omegaconf.dictconfig.DictConfig",
    ],
)
def test_harmless_strangers_come_with_the_line_that_saves_the_weights_alone(name: str) -> None:
    with pytest.raises(UnsafeInputError) as refused:
        read_pickle(io.BytesIO(_with_stranger(name)))
    assert refused.value.details["unsafe"] == [name]
    assert "d['state_dict']" in str(refused.value.hint)


@pytest.mark.parametrize("name", ["os.system", "omegaconf.os.system", "datetime.sys.exit", "__main__.Config"])
def test_other_strangers_come_without_it(name: str) -> None:
    with pytest.raises(UnsafeInputError) as refused:
        read_pickle(io.BytesIO(_with_stranger(name)))
    assert "torch.load" not in str(refused.value.hint)


def test_the_line_saves_what_is_then_read(tmp_path: Path) -> None:
    weights = {"fc.weight": torch.ones(3)}
    torch.save({"model": weights, "when": datetime.datetime(2024, 5, 1)}, tmp_path / "FILE")
    with pytest.raises(UnsafeInputError) as refused:
        read_checkpoint(tmp_path / "FILE")
    line = str(refused.value.hint).partition(": ")[2].replace("python -c", f"{sys.executable} -c", 1)
    subprocess.run(line, shell=True, check=True, cwd=tmp_path)
    assert torch.equal(read_checkpoint(tmp_path / "weights.pth").tensors["fc.weight"], weights["fc.weight"])
