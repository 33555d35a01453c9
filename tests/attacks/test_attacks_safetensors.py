"""safetensors files that lie, against the format's own reader: what is read here it reads too, and alike."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mutations import TEXT, mutated
from safetensors import SafetensorError, deserialize, safe_open
from safetensors.torch import save

from spgsurgeon.checkpoint.containers.headers import SafetensorsHeader, read_header
from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.checkpoint.state_dict.specs import TensorSpec
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError

Read = dict[str, tuple[str, tuple[int, ...], bytes]]


def with_length(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def file_of(header: dict[str, Any], data: bytes = b"") -> bytes:
    return with_length(json.dumps(header).encode(), data)


def real_files() -> list[bytes]:
    layer = {"layer.weight": torch.rand(3, 5), "layer.bias": torch.zeros(3), "mask": torch.ones(2, dtype=torch.bool)}
    kinds = {f"t.{n}": torch.zeros(n, 2, dtype=d) for n, d in enumerate((torch.float16, torch.bfloat16, torch.int64))}
    odd = {
        'a"b\\c': torch.ones(1),
        "é\n": torch.ones(()),
        "": torch.zeros(0, 4),
        "c": torch.ones(1, dtype=torch.complex64),
    }
    files = [
        save(layer, {"format": "pt"}),
        save(kinds),
        save(odd, {"a": "\u2028", "b": ""}),
        save({}),
        save(layer | kinds),
    ]
    compact = json.dumps({"x": {"dtype": "F32", "shape": [1, 2], "data_offsets": [0, 8]}}, separators=(",", ":"))
    return [*files, with_length(compact.encode(), bytes(8))]


def by_package(content: bytes) -> Read | None:
    try:
        return {key: (t["dtype"], tuple(t["shape"]), bytes(t["data"])) for key, t in deserialize(content)}
    except SafetensorError:
        return None


def values(content: bytes, spec: TensorSpec) -> bytes:
    return content[spec.offset : spec.offset + spec.nbytes]


def header_of(path: Path) -> SafetensorsHeader:
    with path.open("rb") as file:
        return read_header(file)


def by_us(path: Path, content: bytes) -> Read | SurgeonError:
    try:
        entries = header_of(path).entries
    except (DamagedFileError, UsageError) as error:
        return error
    return {key: (spec.dtype, spec.shape, values(content, spec)) for key, spec in entries.items()}


ENTRY = '{"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}'

# What the package reads and this reader refuses, by a word of its message. No writer makes any of these.
STRICTER = {
    "twice": '{"a": ENTRY, "a": ENTRY}',  # the package takes the last
    "unknown manner": '{"a": ["U8", [1], [0, 1]]}',
    "impossible shape": '{"b": {"dtype": "U8", "shape": [0, 9223372036854775808], "data_offsets": [0, 0]}, "a": ENTRY}',
    "not read here": '{"a": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}',  # elements that share bytes
    "-0 is no whole number": '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], "x": -0}}',
}


@pytest.mark.parametrize("word", STRICTER)
def test_where_this_reader_is_stricter(word: str, tmp_path: Path) -> None:
    content = with_length(STRICTER[word].replace("ENTRY", ENTRY).encode(), b"x")
    (tmp_path / "model.safetensors").write_bytes(content)
    assert by_package(content) is not None
    with pytest.raises(SurgeonError, match=word):
        header_of(tmp_path / "model.safetensors")


def test_20_000_mutated_headers(tmp_path: Path) -> None:
    rng, files, path = random.Random(0), real_files(), tmp_path / "model.safetensors"
    path.touch()
    slowest, read = 0.0, 0
    with path.open("r+b", buffering=0) as file:  # making a file anew takes longer than all the rest
        for turn in range(20_000):
            whole = files[turn % len(files)]
            end = 8 + int.from_bytes(whole[:8], "little")
            if turn % 8:  # the header with its length put right, so that what is in it counts
                content = with_length(mutated(whole[8:end], rng, TEXT), whole[end:])
            else:
                content = mutated(whole[:end], rng, TEXT) + whole[end:]
            file.seek(0)
            file.write(content)
            file.truncate()
            start = time.process_time()
            ours = by_us(path, content)
            slowest = max(slowest, time.process_time() - start)
            theirs = by_package(content)
            if isinstance(ours, SurgeonError):
                assert len(ours.message) < 600, content
                assert theirs is None or any(word in ours.message for word in STRICTER), (content, ours.message)
            else:
                assert theirs == ours, content
                read += 1
    assert read > 1000
    assert slowest < 1, "seconds of one processor for one header"


@pytest.mark.parametrize("turn", range(len(real_files())))
def test_real_files_are_read_as_safe_open_reads_them(turn: int, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(real_files()[turn])
    tensors, metadata = read_safetensors(path)
    with safe_open(path, "pt") as file:
        assert (file.metadata() or {}) == metadata
        assert set(file.keys()) == tensors.keys()
        for key, tensor in tensors.items():
            assert tensor.dtype == file.get_tensor(key).dtype
            assert torch.equal(tensor, file.get_tensor(key))


@pytest.mark.parametrize("turn", [0, 4])
def test_cut_off_anywhere(turn: int, tmp_path: Path) -> None:
    whole, path = real_files()[turn], tmp_path / "model.safetensors"
    path.write_bytes(whole)
    with path.open("r+b") as file:
        for length in range(len(whole) - 1, -1, -1):
            file.truncate(length)
            with pytest.raises(DamagedFileError) as refused:
                read_outline(path)
            assert len(refused.value.message) < 600
            assert by_package(whole[:length]) is None
    path.write_bytes(whole + b"\x00")
    with pytest.raises(DamagedFileError, match="end at byte"):
        read_outline(path)


def bytes_apiece(count: int) -> dict[str, dict[str, Any]]:
    return {f"layer{n}.weight": {"dtype": "U8", "shape": [1], "data_offsets": [n, n + 1]} for n in range(count)}


@pytest.mark.slow
def test_as_many_tensors_as_are_allowed_are_read(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(file_of(bytes_apiece(80_000), bytes(80_000)))
    assert list(read_outline(tmp_path / "model.safetensors").entries) == list(bytes_apiece(80_000))


COUNT = 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "data", "reason"),
    [
        ({"data_offsets": [COUNT - 2, COUNT - 1]}, COUNT - 1, "begins at byte"),
        ({"data_offsets": [COUNT, COUNT + 1]}, COUNT + 1, "begins at byte"),
        ({"shape": [2]}, COUNT, "not what its shape takes"),
        ({"shape": [2], "data_offsets": [COUNT - 1, COUNT + 1]}, COUNT, "end at byte"),
        ({"dtype": "U9"}, COUNT, "unknown dtype"),
    ],
)
def test_one_lie_among_10_000_tensors_is_found(changes: dict[str, Any], data: int, reason: str, tmp_path: Path) -> None:
    many, last = bytes_apiece(COUNT), f"layer{COUNT - 1}.weight"
    (tmp_path / "model.safetensors").write_bytes(file_of(many | {last: many[last] | changes}, bytes(data)))
    with pytest.raises(DamagedFileError, match=reason):
        read_outline(tmp_path / "model.safetensors")


ENTRY_WITH = '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1], "x": VALUE}}'
LIES = {
    "metadata that is a list": '{"__metadata__": [], "a": ENTRY}',
    "metadata that is nothing": '{"__metadata__": 0, "a": ENTRY}',
    "metadata that is false": '{"__metadata__": false, "a": ENTRY}',
    "metadata that is an empty text": '{"__metadata__": "", "a": ENTRY}',
    "metadata of halves of characters": '{"__metadata__": {"a": "\\ud800"}, "a": ENTRY}',
    "a key of half a character": '{"\\uDC00": ENTRY}',
    "an offset of -0": '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [-0, 1]}}',
    **{
        f"{value} in a field that nobody reads": ENTRY_WITH.replace("VALUE", value)
        for value in ("NaN", "Infinity", "1e999", "9" * 400, "[" * 500 + "]" * 500)
    },
    "a size of NaN": '{"a": {"dtype": "U8", "shape": [NaN], "data_offsets": [0, 1]}}',
    "a size of 10^400": '{"a": {"dtype": "U8", "shape": [1' + "0" * 400 + '], "data_offsets": [0, 1]}}',
    "an offset of 2^64": '{"a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 18446744073709551616]}}',
    "a byte order mark": "\ufeff{}",
    "deep objects": '{"a":' * 50_000 + "1" + "}" * 50_000,
    "deep metadata": '{"__metadata__": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "comments": '{"a": ENTRY /* */}',
    "a comma at the end": '{"a": ENTRY,}',
    "two documents": '{"a": ENTRY} {}',
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_refused_by_both(lie: str, tmp_path: Path) -> None:
    content = with_length(LIES[lie].replace("ENTRY", ENTRY).encode(), b"x")
    (tmp_path / "model.safetensors").write_bytes(content)
    assert by_package(content) is None
    with pytest.raises(DamagedFileError) as refused:
        header_of(tmp_path / "model.safetensors")
    assert len(refused.value.message) < 600


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**62, 2**63, 2**64 - 8, 2**64 - 1, 100_000_001])
def test_a_header_length_that_lies(length: int, tmp_path: Path) -> None:
    whole = real_files()[0]
    (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + whole[8:])
    with pytest.raises(SurgeonError) as refused:
        read_outline(tmp_path / "model.safetensors")
    assert refused.value.exit_code in (1, 2, 4)
    with pytest.raises(DamagedFileError):
        header_of(tmp_path / "model.safetensors")
