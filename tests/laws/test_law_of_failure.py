"""Law 5: a failed graft or strip leaves its inputs and any older output as they were."""

from collections.abc import Callable
from pathlib import Path

import pytest

from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.strip import strip_folder

CLASSES = 7


@pytest.fixture(scope="module")
def patient(tmp_path_factory) -> Path:
    """A folder with `base` (a Hub folder) and `grafted`."""
    folder = tmp_path_factory.mktemp("patient")
    graft_folder("timm/test_resnet", folder / "grafted", num_classes=CLASSES, random_seed=0)
    strip_folder(folder / "grafted", folder / "base")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def fail_at(monkeypatch: pytest.MonkeyPatch, stage: str) -> Callable[[], None]:
    """Let the function `stage` be interrupted as by Ctrl-C; the returned call asserts that it came to that."""
    calls = []

    def interrupt(*args, **kwargs):
        calls.append(stage)
        raise KeyboardInterrupt

    monkeypatch.setattr(f"spgsurgeon.{stage}", interrupt)
    return lambda: pytest.fail(f"{stage} was never called") if not calls else None


@pytest.mark.parametrize(
    "stage",
    [
        "commands.graft.open_model",
        "replicas.grafted.attach",
        "surgery.grafting.prove_graft",
        "checkpoint.writing.write_safetensors",
        "checkpoint.writing.write_json",
        "checkpoint.writing._sync_tree",
        "checkpoint.writing._swap",
    ],
)
def test_law_5_a_graft_that_fails_leaves_its_input_and_the_older_output(stage, patient, tmp_path, monkeypatch):
    graft_folder("timm/test_vit", tmp_path / "older", num_classes=CLASSES, random_seed=1)
    given, older = contents(patient), contents(tmp_path)
    check_reached = fail_at(monkeypatch, stage)
    with pytest.raises(KeyboardInterrupt):
        graft_folder(str(patient / "base"), tmp_path / "older", force=True)
    check_reached()
    assert contents(patient) == given
    assert contents(tmp_path) == older


@pytest.mark.parametrize("output", ["older", "older.pt"])
@pytest.mark.parametrize(
    "stage",
    [
        "commands.strip.open_model",
        "commands.strip.detach",
        "commands.stripping.written.prove_strip",
        "checkpoint.writing._sync",
    ],
)
def test_law_5_a_strip_that_fails_leaves_its_input_and_the_older_output(stage, output, patient, tmp_path, monkeypatch):
    strip_folder(patient / "grafted", tmp_path / output)
    given, older = contents(patient), contents(tmp_path)
    check_reached = fail_at(monkeypatch, stage)
    with pytest.raises(KeyboardInterrupt):
        strip_folder(patient / "grafted", tmp_path / output, force=True)
    check_reached()
    assert contents(patient) == given
    assert contents(tmp_path) == older
