"""What is proven, and whose hash is reported, is the file: a fault in writing a single bit is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import DIGITS, TINY, spgsurgeon, succeed
from torch import Tensor

import spgsurgeon as package
from spgsurgeon.checkpoint import writing
from spgsurgeon.checkpoint.containers.headers import read_header
from spgsurgeon.checkpoint.hashing import content_hash, same_bits
from spgsurgeon.checkpoint.values import content_hash_of
from spgsurgeon.errors import VerificationError

Fault = Callable[[dict[str, Tensor]], None]
COUNTER, VARIANCE, WEIGHT = "conv1.1.num_batches_tracked", "conv1.1.running_var", "conv1.0.weight"


def count(tensors: dict[str, Tensor]) -> None:
    tensors[COUNTER] = tensors[COUNTER] + 1


def lose_a_counter(tensors: dict[str, Tensor]) -> None:
    del tensors[COUNTER]


def flip(tensors: dict[str, Tensor], key: str, bit: int) -> None:
    tensors[key] = tensors[key].clone()
    tensors[key].reshape(-1).view(torch.int32)[-1] ^= 1 << bit


def flip_a_variance(tensors: dict[str, Tensor]) -> None:
    flip(tensors, VARIANCE, 0)


def turn_a_sign(tensors: dict[str, Tensor]) -> None:
    flip(tensors, WEIGHT, 31)


def add_a_key(tensors: dict[str, Tensor]) -> None:
    tensors["mine"] = torch.zeros(1)


def widen(tensors: dict[str, Tensor]) -> None:
    tensors[VARIANCE] = tensors[VARIANCE].double()


FAULTS = (count, lose_a_counter, flip_a_variance, turn_a_sign, add_a_key, widen)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("made")
    succeed("graft", *TINY, "--num-classes", 10, "-o", place / "grafted")
    succeed("strip", place / "grafted", "-o", place / "base")
    return place


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[[Fault], None]:
    """Let every weights file of a base be written with a fault."""

    def install(fault: Fault) -> None:
        save_file, save = writing.save_file, torch.save

        def faulted(tensors: Any) -> Any:
            if WEIGHT in tensors:
                tensors = dict(tensors)
                fault(tensors)
            return tensors

        monkeypatch.setattr(writing, "save_file", lambda tensors, *given: save_file(faulted(tensors), *given))
        monkeypatch.setattr(torch, "save", lambda tensors, *given: save(faulted(tensors), *given))

    return install


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("output", ["out", "out.safetensors", "out.pt"])
def test_a_fault_in_writing_what_is_stripped_is_found(
    output: str, fault: Fault, made: Path, tmp_path: Path, faulty: Callable[[Fault], None]
) -> None:
    faulty(fault)
    outcome = spgsurgeon("strip", made / "grafted", "-o", tmp_path / output)
    assert outcome.code == VerificationError.exit_code, outcome
    assert "read back" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_writing_what_is_grafted_is_found(
    fault: Fault, made: Path, tmp_path: Path, faulty: Callable[[Fault], None]
) -> None:
    faulty(fault)
    outcome = spgsurgeon("graft", made / "base", "-o", tmp_path / "out")
    assert outcome.code == VerificationError.exit_code, outcome
    assert list(tmp_path.iterdir()) == []


def test_a_fault_in_writing_the_replicas_is_found(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file = writing.save_file

    def faulted(tensors: dict[str, Tensor], *given: Any) -> None:
        key = next((key for key in tensors if key.endswith("projection.bias")), None)
        save_file(tensors | ({key: tensors[key] + 1} if key else {}), *given)

    monkeypatch.setattr(writing, "save_file", faulted)
    outcome = spgsurgeon("graft", made / "base", "-o", tmp_path / "out")
    assert outcome.code == VerificationError.exit_code, outcome
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "graft.json"])
def test_a_fault_in_writing_a_document_is_found(
    name: str, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text = Path.write_text

    def faulted(path: Path, text: str, **options: Any) -> int:
        return write_text(path, text.replace("test_resnet", "test_resnes") if path.name == name else text, **options)

    monkeypatch.setattr(Path, "write_text", faulted)
    outcome = spgsurgeon("graft", made / "base", "-o", tmp_path / "out")
    assert outcome.code == VerificationError.exit_code, outcome
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
@pytest.mark.parametrize("fault", [count, flip_a_variance, lose_a_counter])
def test_a_fault_in_exporting_a_module_is_found(
    fault: Fault, suffix: str, made: Path, tmp_path: Path, faulty: Callable[[Fault], None]
) -> None:
    module = package.load(made / "base")
    document = package.export(module, tmp_path / f"sound{suffix}")
    assert document["content_hash"] == content_hash(module.state_dict())
    faulty(fault)
    with pytest.raises(VerificationError, match="read back"):
        package.export(module, tmp_path / f"out{suffix}")
    assert [path.name for path in tmp_path.iterdir()] == [f"sound{suffix}"]


def test_a_fault_in_writing_the_base_of_a_comparison_is_found(
    made: Path, tmp_path: Path, faulty: Callable[[Fault], None]
) -> None:
    faulty(flip_a_variance)
    arguments = (*DIGITS, "data.holdout=0.5", "--seeds", 2, "--arms", "plain", "--jobs", 1)
    outcome = spgsurgeon("compare", made / "base", *arguments, "-o", tmp_path / "out")
    assert outcome.code == VerificationError.exit_code, outcome
    assert list(tmp_path.iterdir()) == []


def test_the_hash_that_is_reported_is_that_of_the_file(made: Path, tmp_path: Path) -> None:
    arguments = ("--export", "safetensors", "--export", "pt", "--export", "onnx", "--json")
    outputs = succeed("strip", made / "grafted", "-o", tmp_path / "out", *arguments).document["outputs"]
    with (tmp_path / "out" / "model.safetensors").open("rb") as file:
        found = content_hash_of(read_header(file).entries)
    assert [written["content_hash"] for written in outputs] == [found] * 3
    assert content_hash(torch.load(tmp_path / "out" / "model.pt")) == found
    onnx = (tmp_path / "out" / "model.onnx").read_bytes()
    assert [written.get("sha256") for written in outputs] == [None, None, hashlib.sha256(onnx).hexdigest()]
    grafted = succeed("graft", tmp_path / "out", "-o", tmp_path / "again", "--json").document
    assert grafted["base"]["content_hash"] == found
    assert json.loads((tmp_path / "again" / "graft.json").read_text())["weights_hash"] == found


# Bits


def bits(value: int) -> Tensor:
    return torch.tensor([value], dtype=torch.int32).view(torch.float32)


@pytest.mark.parametrize(("one", "other"), [(0, -(2**31)), (0x7FC00000, 0x7FC00001), (0x7F800000, 0x7F800001)])
def test_the_same_bits(one: int, other: int) -> None:
    assert same_bits(bits(one), bits(one))
    assert not same_bits(bits(one), bits(other))
    assert not same_bits(bits(one), bits(one).view(torch.int32))
    assert not same_bits(bits(one), bits(one)[None])
    assert same_bits(torch.tensor(True), torch.tensor(True))
    assert same_bits(torch.tensor(1j).conj(), torch.tensor(complex(0, -1)))
