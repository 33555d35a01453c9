from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from spgsurgeon.checkpoint.folders import (
    GraftManifest,
    best_of,
    kind_of,
    read_grafted_folder,
    weights_file_of,
    write_grafted_folder,
)
from spgsurgeon.checkpoint.hashing import content_hash, layout_hash
from spgsurgeon.checkpoint.sealing import document_hash, sealed
from spgsurgeon.checkpoint.tensors import read_checkpoint
from spgsurgeon.checkpoint.writing import write_safetensors
from spgsurgeon.errors import DamagedFileError, UsageError

BASE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.zeros(2)}
TEMPORARY = {"0.weight": torch.ones(3)}
MANIFEST = GraftManifest(
    package_version="0.1.0",
    base={
        "source": "timm/resnet18",
        "library": "timm",
        "architecture": "resnet18",
        "num_classes": 2,
        "model_args": {},
        "content_hash": "0" * 64,
        "tensors": 2,
        "layout": layout_hash(BASE),
    },
    trp={"kind": "dropout", "replicas": 3, "rate": 0.2},
    site={"module": "fc", "side": "input", "width": 3},
    temporary_parameters=3,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "grafted"
    path.mkdir()
    write_grafted_folder(path, base=BASE, temporary=TEMPORARY, config={"architecture": "resnet18"}, manifest=MANIFEST)
    return path


def test_round_trip(folder: Path) -> None:
    grafted = read_grafted_folder(folder)
    hashes = {"weights_hash": content_hash(BASE), "temporary_hash": content_hash(TEMPORARY)}
    hashes |= {"config_hash": document_hash({"architecture": "resnet18"})}
    assert grafted.manifest == replace(MANIFEST, **hashes)
    assert grafted.manifest.base["content_hash"] == "0" * 64
    assert grafted.config == {"architecture": "resnet18"}
    assert torch.equal(read_checkpoint(grafted.base_weights).tensors["fc.weight"], BASE["fc.weight"])
    assert read_checkpoint(grafted.temporary_weights).tensors.keys() == TEMPORARY.keys()
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json",
        "graft.json",
        "model.safetensors",
        "temporary.safetensors",
    ]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "temporary.safetensors"])
def test_a_missing_file_is_named(name: str, folder: Path) -> None:
    (folder / name).unlink()
    with pytest.raises(DamagedFileError, match=f"{name} is missing"):
        read_grafted_folder(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "temporary.safetensors"])
def test_a_changed_or_truncated_weights_file_is_named(name: str, folder: Path) -> None:
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1])
    with pytest.raises(DamagedFileError, match=name):
        read_grafted_folder(folder)
    write_safetensors(folder / name, {"fc.weight": torch.zeros(1)})
    with pytest.raises(DamagedFileError, match=f"{name} is damaged: it is not what graft.json"):
        read_grafted_folder(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.pop("format_version"), "format_version is None"),
        (lambda manifest: manifest.pop("weights_hash"), "weights_hash is missing"),
        (lambda manifest: manifest.update(trp=[]), "trp is"),
        (lambda manifest: manifest["base"].pop("layout"), r"base\.layout is missing"),
    ],
)
def test_a_manifest_with_a_hole_is_damaged(
    change: Callable[[dict[str, Any]], object], message: str, folder: Path
) -> None:
    manifest = json.loads((folder / "graft.json").read_text())
    change(manifest)
    (folder / "graft.json").write_text(json.dumps(manifest))
    with pytest.raises(DamagedFileError, match=message):
        read_grafted_folder(folder)


def test_a_manifest_may_grow_within_its_format_version(folder: Path) -> None:
    manifest = json.loads((folder / "graft.json").read_text())
    (folder / "graft.json").write_text(json.dumps(sealed(manifest | {"later": 1})))
    assert read_grafted_folder(folder).manifest.trp == MANIFEST.trp
    (folder / "graft.json").write_text(json.dumps(manifest | {"format_version": 2, "package_version": "9.0"}))
    with pytest.raises(UsageError, match="format version 2") as refused:
        read_grafted_folder(folder)
    assert "9.0" in str(refused.value.hint)


@pytest.mark.parametrize("content", ["", "{", "[]", "[" * 100_000, "\ufffe"])
@pytest.mark.parametrize("name", ["graft.json", "config.json"])
def test_broken_json_is_damaged(name: str, content: str, folder: Path) -> None:
    (folder / name).write_text(content, encoding="utf-16")
    with pytest.raises(DamagedFileError, match=name):
        read_grafted_folder(folder)
    (folder / name).write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFileError, match=name):
        read_grafted_folder(folder)


def test_kinds_of_folders(folder: Path, tmp_path: Path) -> None:
    assert kind_of(folder) == "grafted"
    (folder / "graft.json").unlink()
    assert kind_of(folder) == "hub"
    with pytest.raises(UsageError, match="not a grafted folder"):
        read_grafted_folder(folder)
    (tmp_path / "run").mkdir()
    with pytest.raises(UsageError, match=r"graft\.json, recipe\.yaml, config\.json"):
        kind_of(tmp_path / "run")
    (tmp_path / "run" / "recipe.yaml").touch()
    assert kind_of(tmp_path / "run") == "run"
    with pytest.raises(UsageError, match="a file"):
        kind_of(tmp_path / "run" / "recipe.yaml")
    with pytest.raises(UsageError, match="missing"):
        kind_of(tmp_path / "absent")


WEIGHTS = ("pytorch_model.bin.index.json", "pytorch_model.bin", "model.safetensors.index.json", "model.safetensors")


def test_a_folder_of_weights_alone(tmp_path: Path) -> None:
    for name in WEIGHTS:  # the last, the safest, wins over what lies beside it
        (tmp_path / name).touch()
        assert kind_of(tmp_path) == "weights"
        assert weights_file_of(tmp_path) == tmp_path / name
    (tmp_path / "config.json").touch()
    assert kind_of(tmp_path) == "hub"


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    with pytest.raises(UsageError, match=", ".join(reversed(WEIGHTS[1:2] + WEIGHTS[2:])).replace(".", r"\.")):
        weights_file_of(tmp_path)


@pytest.mark.parametrize(
    ("left", "advice"),
    [
        ("pytorch_model_fsdp_0/x", "accelerate merge-weights"),
        ("__0_0.distcp", "dcp_to_torch"),
        (".metadata", "dcp_to_torch"),
        ("zero_pp_rank_0_mp_rank_00_model_states.pt", "zero_to_fp32"),
        ("zero_to_fp32.py", "in this folder"),
        ("global_step10/zero_pp_rank_0_mp_rank_00_model_states.pt", "in this folder"),
        ("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_to_fp32"),
    ],
)
def test_the_parts_of_a_sharded_training_are_refused_with_advice(left: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / left).parent.mkdir(exist_ok=True)
    (tmp_path / left).touch()
    for ask in (kind_of, weights_file_of):
        with pytest.raises(UsageError, match="in parts") as refused:
            ask(tmp_path)
        assert advice in str(refused.value.hint)


def test_the_best_checkpoint_of_a_run(tmp_path: Path) -> None:
    step = tmp_path / "run" / "checkpoints" / "000010"
    step.mkdir(parents=True)
    with pytest.raises(UsageError, match="no best checkpoint yet"):
        best_of(tmp_path / "run")
    (tmp_path / "run" / "best").symlink_to("checkpoints/000010")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert best_of(tmp_path / "moved") == tmp_path / "moved" / "checkpoints" / "000010"
    (tmp_path / "moved" / "checkpoints" / "000010").rmdir()
    with pytest.raises(DamagedFileError, match="checkpoints/000010 is missing"):
        best_of(tmp_path / "moved")
