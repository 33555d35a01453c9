"""Locks go with their process, however it ends, and name who holds them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from held_folders import held_elsewhere

from spgsurgeon.errors import UsageError
from spgsurgeon.runtime import locking
from spgsurgeon.runtime.locking import LOCK, FolderLock, check_unowned


def test_one_at_a_time_and_by_name(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as other:
        for attempt in (FolderLock, check_unowned):
            with pytest.raises(UsageError, match=rf"in use: process {other.pid} on {os.uname().nodename} writes"):
                attempt(tmp_path)
        assert (tmp_path / LOCK).is_file()


def test_in_one_process_too(tmp_path: Path) -> None:
    with FolderLock(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} on"):
        FolderLock(tmp_path)
    with FolderLock(tmp_path) as again:
        assert again.left_behind is None


def test_nothing_is_left_of_one_that_is_released_or_dropped(tmp_path: Path) -> None:
    FolderLock(tmp_path).release()
    assert list(tmp_path.iterdir()) == []
    FolderLock(tmp_path)
    assert list(tmp_path.iterdir()) == []
    check_unowned(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("forks", [False, True], ids=["alone", "with a worker that lives on"])
def test_one_that_a_killed_process_left_is_taken_over_and_said(forks: bool, tmp_path: Path) -> None:
    with held_elsewhere(tmp_path, forks=forks) as other:
        other.kill()
        other.wait()
        check_unowned(tmp_path)
        with FolderLock(tmp_path) as owned:
            assert owned.left_behind == f"process {other.pid} on {os.uname().nodename}"
        assert list(tmp_path.iterdir()) == []


def test_it_goes_with_a_folder_that_is_moved(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    owned = FolderLock(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    owned.moved_to(tmp_path / "b")
    with pytest.raises(UsageError):
        FolderLock(tmp_path / "b")
    owned.release()
    assert list((tmp_path / "b").iterdir()) == []


def test_the_lock_of_another_folder_at_its_place_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    older = FolderLock(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "a").mkdir()
    with FolderLock(tmp_path / "a"):
        older.release()
        with pytest.raises(UsageError):
            FolderLock(tmp_path / "a")
    with FolderLock(tmp_path / "b") as again:
        assert again.left_behind is None, "it was released in order"


def test_a_file_that_its_owner_removes_meanwhile_is_not_what_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / LOCK).touch()
    lock, removed = locking.lock, []

    def lock_late(descriptor: int, **options: bool) -> bool:
        if not removed:
            removed.append((tmp_path / LOCK).unlink())
        return lock(descriptor, **options)

    monkeypatch.setattr(locking, "lock", lock_late)
    with FolderLock(tmp_path), pytest.raises(UsageError):
        FolderLock(tmp_path)


@pytest.mark.parametrize("content", ["x", "[]", '{"host": 1}', "\x00" * 5000, '{"host": "h", "process": "\\u001b"}'])
def test_a_file_that_holds_anything_is_taken_over(content: str, tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(content)
    with FolderLock(tmp_path) as owned:
        assert owned.left_behind == "another process"


def test_a_name_is_shown_in_plain_characters(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text('{"host": "\\u001b[31m\\nred", "process": 5}')
    with FolderLock(tmp_path) as owned:
        assert owned.left_behind == r"process 5 on '\x1b[31m\nred'"


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("precious")
    (tmp_path / LOCK).symlink_to("precious")
    with pytest.raises(OSError, match="symbolic links"):
        FolderLock(tmp_path)
    assert (tmp_path / "precious").read_text() == "precious"


def test_where_there_are_no_locks_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "none")

    monkeypatch.setattr(fcntl, "flock", none)
    with FolderLock(tmp_path) as owned:
        assert not owned.works
