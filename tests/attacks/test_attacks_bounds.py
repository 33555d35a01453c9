"""Bounds: what is small to write must not take long to read."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from command_line import DIGITS, TINY, spgsurgeon

from spgsurgeon.checkpoint.containers.headers import MOST_TENSORS
from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.errors import UnsafeInputError


def empty_tensors(count: int, path: Path, name: str = "data_offsets") -> Path:
    header = {f"k{n}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for n in range(count)}
    text = json.dumps(header, separators=(",", ":")).replace("data_offsets", name).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


@pytest.mark.parametrize("name", ["data_offsets", "d\\u0061ta_offsets"])
def test_a_header_of_very_many_empty_tensors_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeInputError) as refused:
        read_outline(empty_tensors(MOST_TENSORS + 2, tmp_path / "m.safetensors", name))
    assert refused.value.code == "too-many-tensors"


def test_many_empty_tensors_are_read(tmp_path: Path) -> None:
    assert len(read_outline(empty_tensors(3000, tmp_path / "m.safetensors")).entries) == 3000


@pytest.mark.parametrize("long", ["x" * 300, "x" * 5000, "a/" * 3000])
def test_long_arguments_are_usage_errors(long: str, tmp_path: Path) -> None:
    for arguments in (
        ("inspect", long),
        ("train", *TINY, *DIGITS, f"trp.kind={long}", "-o", tmp_path / "run"),
        ("train", *TINY, "--recipe", long, "-o", tmp_path / "run"),
        ("train", long, "--recipe", "digits-dropout", "-o", tmp_path / "run"),
        ("graft", *TINY, "-o", tmp_path / long),
    ):
        outcome = spgsurgeon(*arguments)
        assert "unexpected" not in outcome.err, outcome.err[:300]
        assert outcome.code in (1, 2), outcome.err


def test_a_plan_of_very_many_epochs_takes_no_longer(tmp_path: Path) -> None:
    started = time.perf_counter()
    many = "training.epochs=1000000000"
    arguments = (*TINY, "--recipe", "digits-dropout", "training.device=cpu", many)
    outcome = spgsurgeon("train", *arguments, "--dry-run", "--json", "-o", tmp_path / "run")
    assert outcome.code == 0, outcome.err + outcome.out
    assert len(json.dumps(outcome.document)) < 100_000
    assert time.perf_counter() - started < 200  # one look at each epoch's rate would take hours
