"""Files of torch.save written by hand: what its older versions wrote, and what contradicts itself."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.errors import DamagedFileError, UsageError

MAGIC = 0x1950A86A20F9469CFC6C
VALUES = torch.arange(12.0)


class Storage:
    """Pickles as a reference: ("storage", class, key, device, numel, view)."""

    def __init__(self, *rest: Any, kind: Any = torch.FloatStorage) -> None:
        self.reference = ("storage", kind, *rest)


class Rebuilt:
    """Pickles as the call of a rebuilding function."""

    def __init__(self, *args: Any, function: Callable[..., Any] = torch._utils._rebuild_tensor_v2) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> Any:
        return value.reference if isinstance(value, Storage) else None


def legacy(
    path: Path,
    document: object,
    *,
    keys: Any = ("1",),
    storages: bytes = (12).to_bytes(8, "little") + VALUES.numpy().tobytes(),
    version: int = 1001,
    little: bool = True,
) -> Path:
    stream = io.BytesIO()
    for value in (MAGIC, version, {"protocol_version": 1001, "little_endian": little}):
        pickle.dump(value, stream, protocol=2)
    Pickler(stream, protocol=2).dump(document)
    pickle.dump(list(keys), stream, protocol=2)
    path.write_bytes(stream.getvalue() + storages)
    return path


def tensor(*place: Any, storage: Storage | None = None) -> Rebuilt:
    return Rebuilt(storage or Storage("1", "cpu", 12, None), *place, False, {})


def test_a_legacy_file_by_hand(tmp_path: Path) -> None:
    whole, part = Storage("1", "cpu", 12, None), Storage("1", "cuda:0", 12, ("2", 4, 6))
    document = {
        "whole": Rebuilt(whole, 0, (3, 4), (4, 1), function=torch._utils._rebuild_tensor),
        "part": tensor(1, (2, 2), (2, 1), storage=part),
        "cuda": tensor(0, (2,), (1,), storage=Storage("1", "cuda:0", 12, None, kind=torch.cuda.FloatStorage)),
    }
    tensors = read_checkpoint(legacy(tmp_path / "model.pth", document)).tensors
    assert torch.equal(tensors["whole"], VALUES.reshape(3, 4))
    assert torch.equal(tensors["part"], VALUES[5:9].reshape(2, 2))
    assert torch.equal(tensors["cuda"], VALUES[:2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 1000}, "protocol version"),
        ({"keys": ("1", "2")}, "are not those"),
        ({"keys": ()}, "are not those"),
        ({"keys": ("1", ("2",))}, "are not those"),
        ({"storages": (11).to_bytes(8, "little") + bytes(44)}, "has 11 values, not 12"),
        ({"storages": (12).to_bytes(8, "little") + bytes(47)}, "cut off"),
        ({"storages": b""}, "has 0 values"),
    ],
)
def test_a_legacy_file_that_contradicts_itself_is_damaged(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match=message):
        read_checkpoint(legacy(tmp_path / "model.pth", {"a": tensor(0, (12,), (1,))}, **change))


def test_a_big_endian_legacy_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="big-endian"):
        read_checkpoint(legacy(tmp_path / "model.pth", {"a": tensor(0, (12,), (1,))}, little=False))


@pytest.mark.parametrize(
    "value",
    [
        tensor(0, (13,), (1,)),
        tensor(1, (12,), (1,)),
        tensor(0, (2, 2), (12, 1)),
        tensor(-1, (2,), (1,)),
        tensor(0, (-2,), (1,)),
        tensor(4, (2,), (-1,)),
        tensor(0, (True,), (1,)),
        tensor(0, (2.0,), (1,)),
        tensor(0, (2, 2), (1,)),
        tensor(0, (1,) * 65, (1,) * 65),
        tensor(0, (2**40, 2**40), (0, 0)),
        tensor("0", (2,), (1,)),
        tensor(0, [2], [1]),
        Rebuilt(1, 0, (2,), (1,), False, {}),
        Rebuilt(Storage("1", "cpu", 12, None), 0, (2,), (1,), False, {}, 7, function=torch._utils._rebuild_tensor_v3),
        Rebuilt(),
    ],
)
def test_a_tensor_that_can_not_be_is_damage(value: Rebuilt, tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError, match="tensor 'a'"):
        read_checkpoint(legacy(tmp_path / "model.pth", {"a": value, "b": tensor(0, (12,), (1,))}))


@pytest.mark.parametrize(
    "storage",
    [
        Storage("1", "cpu", 12, ("2", 4, 9)),
        Storage("1", "cpu", 12, ("2", -1, 4)),
        Storage("1", "cpu", 12, "view"),
        Storage("1", "cpu", -12, None),
        Storage("1", "cpu", "12", None),
        Storage(("1",), "cpu", 12, None),
        Storage("1", "cpu", 12, None, kind="torch.FloatStorage"),
        Storage(),
    ],
)
def test_a_storage_that_can_not_be_is_damage(storage: Storage, tmp_path: Path) -> None:
    document = {"state_dict": {"a": tensor(0, (2,), (1,))}, "unused": [storage]}
    with pytest.raises(DamagedFileError, match=r"unknown manner|outside of its storage"):
        read_checkpoint(legacy(tmp_path / "model.pth", document))


def test_a_parameter_in_a_parameter_without_end_is_no_tensor(tmp_path: Path) -> None:
    value = tensor(0, (2,), (1,))
    for _ in range(20):
        value = Rebuilt(value, False, {}, function=torch._utils._rebuild_parameter)
    with pytest.raises(DamagedFileError, match="'a' is not a tensor"):
        read_checkpoint(legacy(tmp_path / "model.pth", {"a": value, "b": tensor(0, (12,), (1,))}))
