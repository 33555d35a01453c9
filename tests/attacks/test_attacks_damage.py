"""Bit flips and truncations in every file of a grafted folder and of a run: who uses the file names it."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from command_line import TINY, Outcome, spgsurgeon, succeed
from refusals import attempted, check_short

from spgsurgeon.checkpoint import folders
from spgsurgeon.checkpoint.containers.headers import SafetensorsHeader, read_header
from spgsurgeon.checkpoint.folders import read_grafted_folder, read_manifest, read_state
from spgsurgeon.errors import DamagedFileError, SurgeonError, UsageError
from spgsurgeon.runs.folder import RunFolder

DIGITS = ("--recipe", "digits-dropout", "training.epochs=1", "training.device=cpu", "training.ema=0.9")
WEIGHTS = ("model.safetensors", "temporary.safetensors", "ema.safetensors", "optimizer.safetensors")
DOCUMENTS = ("graft.json", "config.json", "state.json")


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run`, finished, whose only checkpoint is `last` and `best`, and `grafted`."""
    shelf = tmp_path_factory.mktemp("shelf")
    optimizer = ("training.optimizer.name=adamw", "training.optimizer.lr=0.001")
    succeed("train", *TINY, *DIGITS, *optimizer, "-o", shelf / "run")
    succeed("strip", shelf / "run", "-o", shelf / "base")
    succeed("graft", shelf / "base", "-o", shelf / "grafted")
    return shelf


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """Let the file have another content, or fewer bytes, for a while. In place: making files anew is slow."""
    whole = path.read_bytes()
    _rewrite(path, content)
    try:
        yield
    finally:
        _rewrite(path, whole)


def _rewrite(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
        file.truncate()


def flipped(content: bytes, place: int, bit: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :]


def load(run: Path) -> object:
    return RunFolder(run, {}, None).load()  # type: ignore[arg-type]


def places(content: bytes, rng: random.Random) -> list[int]:
    """Return where to flip a bit of a safetensors file: in its header, in its values, at all edges."""
    end = 8 + int.from_bytes(content[:8], "little")
    edges = [0, 7, 8, end - 1, end, len(content) - 1]
    return [*edges, *(rng.randrange(end) for _ in range(10)), *(rng.randrange(end, len(content)) for _ in range(10))]


def header_of(path: Path) -> SafetensorsHeader:
    with path.open("rb") as file:
        return read_header(file)


def check_flip(path: Path, content: bytes, read: Callable[[], object]) -> None:
    """Check that the reader names the file, unless the flip is in the writer's own words, {"format": "pt"}."""
    entries = header_of(path).entries
    with changed(path, content):
        found = attempted(read)
        if isinstance(found, SurgeonError):
            assert isinstance(found, DamagedFileError)
            assert path.name in found.message
        else:
            assert header_of(path).entries == entries
            assert header_of(path).metadata != {"format": "pt"}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_flipped_bit_in_the_weights_of_a_run_is_named(name: str, shelf: Path) -> None:
    rng, path = random.Random(name), shelf / "run" / "last" / name
    whole = path.read_bytes()
    for place in places(whole, rng):
        check_flip(path, flipped(whole, place, rng.randrange(8)), lambda: load(shelf / "run"))
    for length in (0, 1, 8, 9, len(whole) // 2, len(whole) - 1):
        with changed(path, whole[:length]), pytest.raises(DamagedFileError, match=name):
            load(shelf / "run")
    assert load(shelf / "run")


@pytest.mark.parametrize("name", WEIGHTS[:2])
def test_a_flipped_bit_in_the_weights_of_a_grafted_folder_is_named(name: str, shelf: Path) -> None:
    rng, path = random.Random(name), shelf / "grafted" / name
    whole = path.read_bytes()
    for place in places(whole, rng):
        check_flip(path, flipped(whole, place, rng.randrange(8)), lambda: read_grafted_folder(shelf / "grafted"))
    assert read_grafted_folder(shelf / "grafted")


READERS: dict[str, Callable[[Path], Any]] = {
    "graft.json": read_manifest,
    "config.json": read_grafted_folder,
    "state.json": read_state,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_flip_of_any_byte_of_a_document_is_noticed(name: str, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing passes but what leaves every value as it was: whitespace, 1e-4 for 1E-4."""
    monkeypatch.setattr(folders, "check_weights", lambda *_: None)  # looked at above, and slow
    folder = (shelf / "run" / "last").resolve()
    path, rng = folder / name, random.Random(name)
    whole = path.read_bytes()
    passed = []
    for place in range(len(whole)):
        content = flipped(whole, place, rng.randrange(8))
        with changed(path, content):
            found = attempted(lambda: READERS[name](folder))
        if isinstance(found, SurgeonError):
            assert isinstance(found, (DamagedFileError, UsageError))  # UsageError: of a newer format version
            assert name in found.message
            check_short(found)
        else:
            passed.append(content)
    assert all(json.loads(content) == json.loads(whole) for content in passed)
    for length in range(len(whole) - 2):
        with changed(path, whole[:length]), pytest.raises(DamagedFileError, match=name):
            READERS[name](folder)


def commands(shelf: Path) -> dict[str, tuple[object, ...]]:
    run = shelf / "run"
    return {
        "strip": ("strip", run, "-o", shelf / "stripped"),
        "strip raw": ("strip", run, "-o", shelf / "stripped", "--weights", "raw"),
        "resume": ("train", "--resume", "-o", run),
        "eval": ("eval", run, "--data", "digits"),
        "graft": ("graft", run, "-o", shelf / "again"),
    }


USERS = {
    "model.safetensors": ("strip", "strip raw", "eval", "graft"),
    "temporary.safetensors": ("strip",),
    "ema.safetensors": ("strip", "eval"),
    "optimizer.safetensors": (),
    "graft.json": ("strip", "strip raw", "eval", "graft"),
    "config.json": ("strip", "eval"),
    "state.json": ("strip",),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flip", "cut", "missing"])
@pytest.mark.parametrize("name", USERS)
def test_every_command_that_uses_a_file_names_it(name: str, damage: str, shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "run", tmp_path / "run", symlinks=True)
    path = tmp_path / "run" / "last" / name
    whole = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        digit = next(
            place for place in range(len(whole) // 2, len(whole)) if name in WEIGHTS or chr(whole[place]).isdigit()
        )
        path.write_bytes(flipped(whole, digit, 0) if damage == "flip" else whole[: len(whole) // 2])
    for command in USERS[name]:
        outcome = spgsurgeon(*commands(tmp_path)[command])
        said = name in outcome.err
        if name == "graft.json" and damage == "missing":  # then it is not a grafted folder, and says so
            assert outcome.code != 0, command
            continue
        assert (outcome.code, said) == (1, True), (command, outcome)
        assert "unexpected" not in outcome.err
    resumption = spgsurgeon(*commands(tmp_path)["resume"])  # takes the checkpoint before, and says so
    assert (resumption.code, name in resumption.err, "is damaged" in resumption.err) == (0, True, True), resumption
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def resumed(run: Path) -> Outcome:
    return spgsurgeon("train", "--resume", "--dry-run", "-o", run)


def test_a_run_whose_recipe_or_log_is_damaged_never_ends_in_a_traceback(shelf: Path, tmp_path: Path) -> None:
    """Neither is hashed: a recipe is for people to read, a line of the log is dropped where it is no longer one."""
    shutil.copytree(shelf / "run", tmp_path / "run", symlinks=True)
    rng = random.Random(0)
    for name in ("recipe.yaml", "metrics.jsonl"):
        path = tmp_path / "run" / name
        whole = path.read_bytes()
        for _ in range(10):
            content = flipped(whole, rng.randrange(len(whole)), rng.randrange(8))
            with changed(path, content if rng.random() < 0.8 else whole[: rng.randrange(len(whole))]):
                outcome = resumed(tmp_path / "run")
                assert "unexpected" not in outcome.err, (content, outcome)
                assert outcome.code in (0, 1, 2, 5), (content, outcome)
    assert resumed(tmp_path / "run").code == 0


@pytest.mark.parametrize("link", ["last", "best"])
def test_a_link_that_leads_nowhere_is_no_fresh_start(link: str, shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "run", tmp_path / "run", symlinks=True)
    shutil.rmtree(tmp_path / "run" / "checkpoints")
    outcome = spgsurgeon(*commands(tmp_path)["resume" if link == "last" else "strip"])
    assert outcome.code == 1
    assert f"{link} checkpoint" in outcome.err
    assert "is missing" in outcome.err


@pytest.mark.parametrize("name", ["config.json", "graft.json", "state.json"])
def test_a_folder_in_the_place_of_a_file(name: str, shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "run", tmp_path / "run", symlinks=True)
    (tmp_path / "run" / "last" / name).unlink()
    (tmp_path / "run" / "last" / name).mkdir()
    with pytest.raises(SurgeonError):
        load(tmp_path / "run")
