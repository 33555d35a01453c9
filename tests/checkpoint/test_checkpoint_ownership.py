"""What a record says is ours, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from spgsurgeon.checkpoint.ownership import (
    RECORD,
    check_ours,
    has_own_record,
    record,
    remove_ours,
    strangers,
    temporary_of,
)
from spgsurgeon.errors import UsageError
from spgsurgeon.runtime.locking import LOCK


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "a[1].txt").touch()
    (folder / "deep" / "b").touch()
    record(folder, "folder", ["log", "many/*.png", "below/*/"])
    return folder


def test_what_was_there_and_what_comes_later_is_ours(folder: Path) -> None:
    (folder / "log").touch()
    (folder / LOCK).touch()
    (folder / ".log.0123abcd.tmp").mkdir()
    (folder / "many").mkdir()
    (folder / "many" / "1.png").touch()
    (folder / "below" / "x").mkdir(parents=True)
    (folder / "below" / "x" / "c").touch()
    record(folder / "below" / "x", "x")
    assert strangers(folder) == []
    check_ours(folder)
    remove_ours(folder)
    assert not folder.exists()


STRANGERS = ("a1.txt", "a[2].txt", "deep/c", "many/1.jpg", ".log.tmp", ".log.0123abcg.tmp", "below/file", "logs")


@pytest.mark.parametrize("name", STRANGERS)
def test_what_was_not_is_a_strangers_and_stays(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("mine")
    assert strangers(folder) == [name]
    with pytest.raises(UsageError, match="not replaced"):
        check_ours(folder)
    remove_ours(folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


def test_folders_need_a_record_of_their_own_under_their_own_name(folder: Path) -> None:
    (folder / "below" / "x").mkdir(parents=True)
    assert strangers(folder) == ["below/x/"]
    (folder / "below" / "x" / "c").touch()
    record(folder / "below" / "x", "x")
    shutil.copytree(folder / "below" / "x", folder / "below" / "copy")
    assert strangers(folder) == ["below/copy/"]
    assert not has_own_record(folder / "below" / "copy")


def test_links_are_not_followed(folder: Path, tmp_path: Path) -> None:
    shutil.move(folder / "deep", tmp_path / "elsewhere")
    (folder / "deep").symlink_to(tmp_path / "elsewhere")
    assert strangers(folder) == ["deep"]
    remove_ours(folder)
    assert (tmp_path / "elsewhere" / "b").exists()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    record(tmp_path / "elsewhere", "link")
    assert not has_own_record(tmp_path / "link")
    remove_ours(tmp_path / "link")
    assert (tmp_path / "elsewhere" / "b").exists()


@pytest.mark.parametrize("text", ["", "[]", '{"holds": 3}', '{"holds": [[]], "later": {}}', "[" * 100_000, "\xff"])
def test_a_record_that_says_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    (tmp_path / RECORD).write_text(text, encoding="latin-1")
    assert strangers(tmp_path) == ["mine"]
    remove_ours(tmp_path)
    assert (tmp_path / "mine").exists()


def test_a_moved_folder_is_still_ours(folder: Path, tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    assert strangers(tmp_path / "moved") == []


def test_a_record_names_nothing_outside_its_folder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").touch()
    (folder / RECORD).write_text(json.dumps({"holds": ["../outside", str(tmp_path / "outside"), "*", "*/*"]}))
    remove_ours(folder)
    assert (tmp_path / "outside").exists()
    assert not folder.exists()


def test_names_of_temporaries() -> None:
    assert temporary_of(".a.b.0123abcd.tmp") == "a.b"
    for name in ("a.0123abcd.tmp", ".a.0123ABCD.tmp", ".a.0123abc.tmp", ".0123abcd.tmp", ".mine.tmp"):
        assert temporary_of(name) is None
