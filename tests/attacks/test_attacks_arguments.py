"""Files that hand a model library arguments which fetch, read, write, or take all time and memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import audited_commands
import pytest
import timm
import torch
import torchvision
from command_line import TINY, succeed
from hostile_models import (
    CLASSES,
    Attack,
    attacks,
    forms,
    hub_folder,
    regrafted,
    timm_config,
    training_checkpoint,
)

from spgsurgeon.errors import ArchitectureError, DamagedFileError, UnsafeInputError

ANSWER = dict[str, Any]


def verbs(model: Path, output: Path) -> list[tuple[object, ...]]:
    """Return every way to open a model, with what is least to do after that."""
    return [
        ("inspect", model),
        ("graft", model, "-o", output, "--force"),
        ("eval", model, "--data", "digits"),
        ("bench", model, "--steps", 1),
    ]


def run_audited(
    commands: list[tuple[Path, tuple[object, ...]]], free: Path, victim: Path, first: list[tuple[object, ...]]
) -> list[ANSWER]:
    """Run commands, each with the folder that it may read, in a process that may write below `free` alone."""
    asked = {
        "free": str(free),
        "victim": str(victim),
        "first": [[str(one) for one in command] for command in first],
        "commands": [
            {"arguments": [str(one) for one in command], "folder": str(folder)} for folder, command in commands
        ],
    }
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    completed = subprocess.run(
        [sys.executable, audited_commands.__file__],
        input=json.dumps(asked),
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1", "HOME": str(free)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    report = json.loads(completed.stdout.splitlines()[-1])
    assert any("canary" in event for event in report["heard"])  # else the watch is deaf
    answers: list[ANSWER] = report["answers"]
    return answers


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A folder that may be written to, one that may not, and the attacker's file."""
    root = tmp_path_factory.mktemp("hostile")
    free, victim, payload = root / "free", root / "victim", root / "elsewhere" / "payload.pth"
    for folder in (free, victim, payload.parent):
        folder.mkdir()
    torch.save(timm.create_model("test_resnet", num_classes=CLASSES).state_dict(), payload)
    return free, victim, payload


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "grafted"
    succeed("graft", *TINY, "--num-classes", CLASSES, "-o", folder)
    return folder


def test_no_file_hands_a_library_what_fetches_reads_or_writes(places, sound: Path, tmp_path: Path) -> None:
    free, victim, payload = places
    commands, named, turn = [], [], 0
    for number, (name, attack) in enumerate(attacks(payload, victim).items()):
        made = dict(forms(tmp_path / str(number), attack))
        made |= {
            "manifest": regrafted(tmp_path / str(number) / "manifest", sound, attack, in_manifest=True),
            "grafted config": regrafted(tmp_path / str(number) / "grafted", sound, attack, in_manifest=False),
        }
        for form, path in made.items():
            more = [("strip", path, "-o", free / "better", "--force")] if form in ("manifest", "grafted config") else []
            turn += 1  # two of the verbs each: in seven forms of 30 attacks, all meet all
            ways = verbs(path, free / "grafted")
            for command in (ways[turn % 4], ways[(turn // 4 + turn % 4 + 1) % 4], *more):
                commands.append((path if path.is_dir() else path.parent, command))
                strange = [one for one in attack.args if one not in ("in_chans", "img_size")]
                named.append((f"{name}, {form}, {command[0]}", strange, form))
    answers = run_audited(commands, free, victim, [("inspect", sound), ("graft", *TINY, "-o", free / "first")])
    wrong = [
        (case, answer)
        for (case, strange, form), answer in zip(named, answers, strict=True)
        if answer["code"] != UnsafeInputError.exit_code
        or answer["seen"]
        or not all(ascii(one)[1:-1] in answer["err"] for one in strange)
        or ("checkpoint" in form) != ("model_kwargs" in answer["err"])
    ]
    assert not wrong, f"{len(wrong)} of {len(answers)}: {wrong[:5]}"
    assert len(answers) > 500
    assert list(victim.iterdir()) == []


SOURCES = {
    "url": {"url": "http://127.0.0.1:9/weights.pth"},
    "file": {"file": "PAYLOAD"},
    "hub": {"hf_hub_id": "timm/test_resnet.r160_in1k", "source": "hf-hub", "hf_hub_filename": "x.bin"},
    "tensors": {"state_dict": {"fc.weight": [0]}, "custom_load": True},
}


def test_where_weights_came_from_is_neither_asked_nor_kept(places, tmp_path: Path) -> None:
    free, victim, payload = places
    commands = []
    for name, cfg in SOURCES.items():
        attack = Attack(cfg=json.loads(json.dumps(cfg).replace("PAYLOAD", str(payload))))
        made = [(form, path) for form, path in forms(tmp_path / name, attack) if path.is_dir()]
        commands += [(path, (form, command)) for form, path in made for command in verbs(path, free / name / form)[:2]]
    answers = run_audited(
        [(folder, command) for folder, (_, command) in commands],
        free,
        victim,
        [("inspect", *TINY), ("graft", *TINY, "-o", free / "first again")],
    )
    codes = {"misfit": ArchitectureError.exit_code}
    wrong = [
        (form, command, answer)
        for (_, (form, command)), answer in zip(commands, answers, strict=True)
        if answer["code"] != codes.get(form, 0) or answer["seen"]
    ]
    assert not wrong, wrong[:3]
    for name in SOURCES:
        for form in ("hub", "transformers", "torchvision"):
            written = json.loads((free / name / form / "config.json").read_text())["pretrained_cfg"]
            assert not {"url", "file", "hf_hub_id", "hf_hub_filename", "source", "state_dict"} & written.keys()
            assert not written.get("custom_load")
    assert list(victim.iterdir()) == []


def swin() -> dict[str, torch.Tensor]:
    return timm.create_model("swin_tiny_patch4_window7_224", num_classes=CLASSES).state_dict()


def vit() -> dict[str, torch.Tensor]:
    return timm.create_model("test_vit", num_classes=CLASSES).state_dict()


def resnet() -> dict[str, torch.Tensor]:
    return timm.create_model("test_resnet", num_classes=CLASSES).state_dict()


def torchvision_vit() -> dict[str, torch.Tensor]:
    return torchvision.models.vit_b_16(num_classes=CLASSES).state_dict()


DAMAGED, UNFIT = DamagedFileError.exit_code, ArchitectureError.exit_code
HUGE: dict[str, tuple[Any, dict[str, Any], int, str]] = {
    "layers": (resnet, {"model_args": {"layers": [3000, 1, 1, 1]}}, DAMAGED, "layers"),
    "layers by the thousand": (resnet, {"model_args": {"layers": [1000, 1, 1, 1]}}, UNFIT, "far more"),
    "width": (resnet, {"model_args": {"channels": [60_000] * 4}}, UNFIT, "far more"),
    "classes": (resnet, {"num_classes": 200_000_000}, DAMAGED, "num_classes"),
    "a million classes": (resnet, {"num_classes": 1_000_000}, DAMAGED, "1000000 classes"),
    "classes that are none": (resnet, {"num_classes": "ten"}, DAMAGED, "num_classes"),
    "pixels": (vit, {"architecture": "test_vit", "model_args": {"img_size": 200_000}}, DAMAGED, "img_size"),
    "positions": (
        vit,
        {"architecture": "test_vit", "model_args": {"img_size": 4096, "patch_size": 1}},
        UNFIT,
        "far more",
    ),
    "depth": (vit, {"architecture": "test_vit", "model_args": {"depth": 1024}}, UNFIT, "far more"),
    "embedding": (
        vit,
        {"architecture": "test_vit", "model_args": {"embed_dim": 65_536, "num_heads": 1}},
        UNFIT,
        "far more",
    ),
    "windows": (
        swin,
        {"architecture": "swin_tiny_patch4_window7_224", "model_args": {"img_size": 4096, "window_size": 256}},
        UNFIT,
        "far more",
    ),
    "torchvision": (
        torchvision_vit,
        {"library": "torchvision", "architecture": "vit_b_16", "model_args": {"image_size": 4096}},
        UNFIT,
        "encoder.pos_embedding",
    ),
    "a description": (resnet, {"pretrained_cfg": {"input_size": [3, 10**6, 10**6]}}, DAMAGED, "input_size"),
    "a crop": (resnet, {"pretrained_cfg": {"crop_pct": 1e-9}}, DAMAGED, "crop_pct"),
    "no spread": (resnet, {"pretrained_cfg": {"std": [0.1, 0.1, 0.0]}}, DAMAGED, "std"),
}


def test_a_model_far_larger_than_its_file_takes_neither_time_nor_memory(places, tmp_path: Path) -> None:
    free, victim, _ = places
    commands, expected = [], []
    for name, (make, says, code, word) in HUGE.items():
        path = hub_folder(tmp_path / name, timm_config(Attack()) | says, make())
        commands.append((path, ("graft", path, "-o", free / "huge")))
        expected.append((name, code, word))
    for args in ({"layers": [1000, 1, 1, 1]}, {"channels": [60_000] * 4}):
        path = training_checkpoint(tmp_path / f"{next(iter(args))}.pth", "test_resnet", resnet(), model_kwargs=args)
        commands.append((tmp_path, ("graft", path, "-o", free / "huge")))
        expected.append((f"{args} in a checkpoint", UNFIT, "far more"))
    answers = run_audited(commands, free, victim, [("inspect", *TINY)])
    wrong = [
        (name, answer)
        for (name, code, word), answer in zip(expected, answers, strict=True)
        if answer["code"] != code or word not in answer["err"] or answer["seen"] or answer["megabytes"] > 700
    ]
    assert not wrong, wrong
