"""The header reader against the safetensors package: both accept the same files, but for keys that occur twice."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError, deserialize
from safetensors.torch import save

from spgsurgeon.checkpoint.containers.headers import SafetensorsHeader, read_header
from spgsurgeon.checkpoint.state_dict.specs import DTYPE_SIZES
from spgsurgeon.errors import DamagedFileError, UsageError


def packed(header: str | bytes | dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header) if isinstance(header, dict) else header
    raw = text.encode() if isinstance(text, str) else text
    return len(raw).to_bytes(8, "little") + raw + data


def entry(dtype: Any = "U8", shape: Any = (1,), offsets: Any = (0, 1)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def written(content: bytes, folder: Path) -> Path:
    path = folder / "model.safetensors"
    path.write_bytes(content)
    return path


def header_of(path: Path) -> SafetensorsHeader:
    with path.open("rb") as file:
        return read_header(file)


def package_reads(content: bytes) -> bool:
    try:
        deserialize(content)
    except SafetensorError:
        return False
    return True


ACCEPTED = {
    "nothing": packed({}),
    "metadata": packed({"__metadata__": {"format": "pt"}, "a": entry()}, b"x"),
    "no metadata": packed({"__metadata__": None, "a": entry()}, b"x"),
    "padding": packed(json.dumps({"a": entry()}) + "   ", b"x"),
    "another field": packed({"a": entry() | {"note": [1.5]}}, b"x"),
    "empty tensors between": packed({"b": entry(shape=[0], offsets=[1, 1]), "a": entry()}, b"x"),
    "an empty key": packed({"": entry()}, b"x"),
    "a scalar": packed({"a": entry(shape=[])}, b"x"),
    **{dtype: packed({"a": entry(dtype, [0], [0, 0])}) for dtype in DTYPE_SIZES if dtype != "C128"},
}

REFUSED = {
    "a length beyond the file": (10**6).to_bytes(8, "little") + b"{}",
    "a length of 2^64": b"\xff" * 8 + b"{}",
    "no JSON": packed("{"),
    "NaN": packed('{"a": NaN}'),
    "no UTF-8": packed(b'{"\xff": 1}'),
    "UTF-16": packed("{}".encode("utf-16")),
    "a list": packed("[]"),
    "deep JSON": packed('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}"),
    "an unknown dtype": packed({"a": entry("F31")}, b"x"),
    "a dtype of torch's alone": packed({"a": entry("C128", [0], [0, 0])}),
    "a missing field": packed({"a": {"dtype": "U8", "shape": [1]}}, b"x"),
    "metadata that is not text": packed({"__metadata__": {"a": 1}, "a": entry()}, b"x"),
    "a size of true": packed({"a": entry(shape=[True])}, b"x"),
    "a size of 1.0": packed({"a": entry(shape=[1.0])}, b"x"),
    "a negative size": packed({"a": entry(shape=[-1, -1])}, b"x"),
    "a size that overflows": packed({"a": entry(shape=[2**32, 2**32, 0], offsets=[0, 0])}),
    "a size of a million digits": packed(json.dumps({"a": entry(shape=[7])}).replace("7", "9" * 10**6), b"x"),
    "the wrong number of bytes": packed({"a": entry("F32", [1], [0, 1])}, b"x"),
    "three offsets": packed({"a": entry(offsets=[0, 1, 1])}, b"x"),
    "offsets that go back": packed({"a": entry(offsets=[1, 0])}, b"x"),
    "a hole": packed({"a": entry(), "b": entry(offsets=[2, 3])}, b"xyz"),
    "a hole in front": packed({"a": entry(offsets=[1, 2])}, b"xy"),
    "an overlap": packed({"a": entry(shape=[2], offsets=[0, 2]), "b": entry(offsets=[1, 2])}, b"xy"),
    "data that ends early": packed({"a": entry()}),
    "data that goes on": packed({"a": entry()}, b"xy"),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_what_the_package_accepts_is_accepted(case: str, tmp_path: Path) -> None:
    if not package_reads(ACCEPTED[case]) and case in ("C64", "F8_E4M3FNUZ", "F8_E5M2FNUZ"):
        pytest.skip("the installed safetensors is older than this dtype")
    assert package_reads(ACCEPTED[case])
    header_of(written(ACCEPTED[case], tmp_path))


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_package_refuses_is_refused(case: str, tmp_path: Path) -> None:
    assert not package_reads(REFUSED[case])
    with pytest.raises(DamagedFileError) as refused:
        header_of(written(REFUSED[case], tmp_path))
    assert len(refused.value.message) < 500


@pytest.mark.parametrize("twice", ['"a": ENTRY, "a": ENTRY', '"__metadata__": {"x": "y", "x": "z"}, "a": ENTRY'])
def test_a_key_that_occurs_twice_is_refused(twice: str, tmp_path: Path) -> None:
    header = "{" + twice.replace("ENTRY", json.dumps(entry())) + "}"
    with pytest.raises(DamagedFileError, match="twice"):
        header_of(written(packed(header, b"x"), tmp_path))


def test_elements_that_share_bytes_are_refused_with_advice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="F4"):
        header_of(written(packed({"a": entry("F4", [2], [0, 1])}, b"x"), tmp_path))


def test_the_writers_strings_and_the_order_of_the_bytes(tmp_path: Path) -> None:
    tensors = {"a": torch.zeros(3, dtype=torch.int8), "b": torch.zeros(2, 2)}
    header = header_of(written(save(tensors, {"format": "pt"}), tmp_path))
    assert header.metadata == {"format": "pt"}
    assert [(key, spec.dtype, spec.shape) for key, spec in header.entries.items()] == [
        ("b", "F32", (2, 2)),
        ("a", "I8", (3,)),
    ]


def test_mutated_headers_are_read_exactly_where_the_package_reads_them(tmp_path: Path) -> None:
    whole = save({"layer.weight": torch.rand(3, 5), "layer.bias": torch.zeros(3), "mask": torch.ones(2).bool()})
    end = 8 + int.from_bytes(whole[:8], "little")
    path, rng, read = written(whole, tmp_path), random.Random(0), 0
    with path.open("r+b", buffering=0) as file:  # making a file anew takes longer than all the rest
        for _ in range(2000):
            content = bytearray(whole)
            for _ in range(rng.choice([1, 1, 2, 4])):
                content[rng.randrange(end)] = rng.choice(b'0123456789,:[]{}"ab ' + bytes([rng.randrange(256)]))
            file.seek(0)
            file.write(content)
            try:
                header_of(path)
            except (DamagedFileError, UsageError):
                continue
            read += 1
            assert package_reads(bytes(content))
    assert read > 100
