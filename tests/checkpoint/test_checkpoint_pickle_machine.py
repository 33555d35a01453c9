"""The tree that a pickle is read as, and pickles made to hurt whoever reads them."""

from __future__ import annotations

import argparse
import io
import pickle
import struct
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest

from spgsurgeon.checkpoint.pickle import machine
from spgsurgeon.checkpoint.pickle.nodes import Attributes, Call, Global, Inert, Persistent
from spgsurgeon.checkpoint.pickle.pickles import read_pickle
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError


def tree(data: bytes) -> Any:
    return read_pickle(io.BytesIO(data))[0]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(protocol: int) -> None:
    shared = ["é", 2**70, -1, 1.5]
    document = {
        "a": [None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), "x" * 300, shared, shared],
        1: {"nested": OrderedDict(a=1, b=2)},
        2.5: defaultdict(list, a=[1]),
        None: Counter("aab"),
        "many": list(range(2000)),
        "args": argparse.Namespace(model="resnet18", lr=0.1),
    }
    found = tree(pickle.dumps(document, protocol))
    assert found == document | {"args": {"model": "resnet18", "lr": 0.1}}
    assert type(found["args"]) is Attributes
    assert type(found[1]["nested"]) is dict
    assert found["a"][-1] is found["a"][-2]


def test_sets_are_lists_and_calls_stay_calls() -> None:
    found = tree(pickle.dumps([{1}, frozenset([2]), b"raw"], 4))
    assert found == [[1], [2], b"raw"]
    path = tree(pickle.dumps(Path("a", "b"), 2))
    assert (path.name, path.args) == ("pathlib.PosixPath", ("a", "b"))
    state = tree(b"\x80\x02ctorch\nSize\n)R}X\x01\x00\x00\x00aK\x01sb.")
    assert isinstance(state, Call)
    assert state.state == {"a": 1}


def test_dictionaries_as_python_2_wrote_them() -> None:
    assert tree(b"\x80\x02ccollections\nOrderedDict\n](](U\x01aK\x01e](U\x01bK\x02ee\x85R.") == {"a": 1, "b": 2}
    assert tree(b"\x80\x02c__builtin__\nint\n.").name == "builtins.int"


def test_persistent_ids_are_collected_in_order() -> None:
    found, persistent = read_pickle(io.BytesIO(b"\x80\x02]((U\x01aK\x01tQ(U\x01bK\x02tQe."))
    assert [type(node) for node in found] == [Persistent, Persistent]
    assert [node.id for node in persistent] == [("a", 1), ("b", 2)]
    assert found == persistent


def test_keys_that_are_dangerous_to_hash_are_not_hashed() -> None:
    doubled = b"".join(b"0h%ch%c\x86q%c" % (n, n, n + 1) for n in range(100))  # a tuple of 2^100 leaves
    found = tree(b"\x80\x02)q\x00" + doubled + b"0}(h\x64K\x01K\x07K\x02\x8a\x09" + b"\x00" * 8 + b"\x01K\x03u.")
    assert [type(key) for key in found] == [Inert, int, Inert]
    assert list(found.values()) == [1, 2, 3]


def test_huge_integers_are_not_kept() -> None:
    found = tree(b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b".")
    assert isinstance(found, Inert)


NAME = b"X" + struct.pack("<I", 10**6) + b"x" * 10**6
PAIRS = b"q\x000](" + b"](K\x01K\x02e" * 2000 + b"eq\x010" + b"h\x00h\x01\x85R0" * 2000
BOMBS = {
    "a deep list": (b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b".", None),
    "a deep tuple": (b"\x80\x02)" + b"\x85" * 200_000 + b".", None),
    "deep calls": (b"\x80\x02ctorch\nSize\nq\x000)" + b"\x85q\x010h\x00h\x01R" * 20_000 + b".", None),
    "a list in itself": (b"\x80\x02]q\x00h\x00a.", None),
    "a memo of four billion": (b"\x80\x02Nr\xff\xff\xff\xff.", None),
    "names of a gigabyte": (b"\x80\x04" + NAME + b"q\x000" + b"h\x00h\x00\x930" * 1000 + b"N.", UnsafeInputError),
    "dictionaries copied again and again": (b"\x80\x02ccollections\nOrderedDict\n" + PAIRS + b"N.", UnsafeInputError),
    "a text of 2^64 bytes": (b"\x80\x04\x8d" + b"\xff" * 8 + b".", DamagedFileError),
    "a text of a number": (b"\x80\x02L" + b"9" * 10**6 + b"L\n.", DamagedFileError),
    "values left over": (b"\x80\x02NN.", DamagedFileError),
    "an open mark": (b"\x80\x02(N.", DamagedFileError),
    "an update of itself": (b"\x80\x02cargparse\nNamespace\n)Rq\x00h\x00b.", None),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_bombs_are_defused(bomb: str) -> None:
    data, refusal = BOMBS[bomb]
    if refusal is None:
        tree(data)
        return
    with pytest.raises(refusal) as refused:
        tree(data)
    assert isinstance(refused.value, SurgeonError)
    assert len(refused.value.message) < 1000


def test_a_pickle_of_too_many_instructions_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "MOST_INSTRUCTIONS", 100)
    tree(b"\x80\x02" + b"N0" * 48 + b"N.")
    with pytest.raises(UnsafeInputError, match="instructions"):
        tree(b"\x80\x02" + b"N0" * 49 + b"N.")


def test_globals_and_calls_are_named_not_imported() -> None:
    found = tree(b"\x80\x02ctorch\nSize\n(K\x01K\x02tR.")
    assert (found.name, found.args) == ("torch.Size", (1, 2))
    assert isinstance(tree(b"\x80\x02ctorch\nfloat32\n."), Global)
