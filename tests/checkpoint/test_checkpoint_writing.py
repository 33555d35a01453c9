from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch
from torch import Tensor

from spgsurgeon.checkpoint import writing
from spgsurgeon.checkpoint.ownership import RECORD, record
from spgsurgeon.checkpoint.tensors import read_checkpoint, read_safetensors
from spgsurgeon.checkpoint.writing import (
    atomic_file,
    atomic_folder,
    refuse_overwriting_input,
    write_json,
    write_safetensors,
    write_torch,
)
from spgsurgeon.errors import SurgeonError, UsageError

Write = Callable[[Path], None]


def write_file(path: Path) -> None:
    with atomic_file(path, force=True) as temporary:
        temporary.write_text("new")


def write_folder(path: Path) -> None:
    with atomic_folder(path, force=True) as temporary:
        (temporary / "config.json").write_text("new")
        (temporary / "deeper").mkdir()
        (temporary / "deeper" / "file").write_text("new")


def tree(folder: Path) -> dict[str, str | None]:
    """Return what lies there by name, without records."""
    found = (path for path in folder.rglob("*") if path.name != RECORD)
    return {str(path.relative_to(folder)): path.read_text() if path.is_file() else None for path in found}


@pytest.fixture
def older(tmp_path: Path) -> Path:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "config.json").write_text("old")
    (tmp_path / "folder" / "extra").write_text("old")
    record(tmp_path / "folder", "folder")
    return tmp_path


def test_new_outputs_and_their_parents_appear(tmp_path: Path) -> None:
    with atomic_file(tmp_path / "a" / "b" / "file") as temporary:
        assert temporary.parent.parent == tmp_path / "a" / "b"
        temporary.write_text("new")
        assert not (tmp_path / "a" / "b" / "file").exists()
    with atomic_folder(tmp_path / "c" / "folder") as temporary:
        assert temporary.parent == tmp_path / "c"
        (temporary / "file").write_text("new")
        assert not (tmp_path / "c" / "folder").exists()
    assert tree(tmp_path) == {
        "a": None,
        "a/b": None,
        "a/b/file": "new",
        "c": None,
        "c/folder": None,
        "c/folder/file": "new",
    }


def test_force_replaces_everything(older: Path) -> None:
    write_file(older / "file")
    write_folder(older / "folder")
    assert tree(older) == {
        "file": "new",
        "folder": None,
        "folder/config.json": "new",
        "folder/deeper": None,
        "folder/deeper/file": "new",
    }


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
@pytest.mark.parametrize("name", ["file", "folder", "dangling"])
def test_an_existing_output_is_refused_without_force(
    atomic: Callable[[Path], AbstractContextManager[Path]], name: str, older: Path
) -> None:
    (older / "dangling").symlink_to(older / "nowhere")
    with pytest.raises(UsageError, match="exists") as refused, atomic(older / name):
        pass
    assert "--force" in str(refused.value.hint)


def test_force_spares_strangers_folders_and_other_kinds(older: Path) -> None:
    (older / "home").mkdir()
    (older / "home" / "thesis.tex").write_text("old")
    before = tree(older)
    with pytest.raises(UsageError, match="not replaced, even with --force"):
        write_folder(older / "home")
    with pytest.raises(UsageError, match="is a file"):
        write_folder(older / "file")
    with pytest.raises(UsageError, match="is a folder"):
        write_file(older / "folder")
    assert tree(older) == before
    (older / "home" / "thesis.tex").unlink()
    write_folder(older / "home")
    assert (older / "home" / "config.json").read_text() == "new"


WRITES = pytest.mark.parametrize(("write", "name"), [(write_file, "file"), (write_folder, "folder")])


def fail_with(number: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@WRITES
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_failing_disk_leaves_the_older_output(
    write: Write, name: str, number: int, older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = tree(older)
    monkeypatch.setattr(os, "fsync", fail_with(number))
    with pytest.raises(SurgeonError, match="disk full" if number == errno.ENOSPC else os.strerror(number)) as failed:
        write(older / name)
    assert str(older / name) in failed.value.message
    assert tree(older) == before


@pytest.mark.parametrize("kept", [0, 1])
def test_a_failing_swap_of_folders_is_rolled_back(kept: int, older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "_exchange", lambda *_: False)  # as on systems that can't
    before = tree(older)
    rename, renamed = os.rename, []

    def fail_once(source: Path, target: Path) -> None:
        renamed.append(target)
        if len(renamed) == kept + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail_once)
    with pytest.raises(SurgeonError):
        write_folder(older / "folder")
    assert tree(older) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interrupted_write_leaves_the_older_output(error: type[BaseException], older: Path) -> None:
    def interrupted_file() -> None:
        with atomic_file(older / "file", force=True) as temporary:
            temporary.write_text("half")
            raise error

    def interrupted_folder() -> None:
        with atomic_folder(older / "folder", force=True) as temporary:
            (temporary / "half").write_text("half")
            raise error

    before = tree(older)
    for write in (interrupted_file, interrupted_folder):
        with pytest.raises(error):
            write()
    assert tree(older) == before


def test_everything_is_synced_before_it_is_renamed(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []
    fsync, rename, replace = os.fsync, os.rename, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd)))
    monkeypatch.setattr(os, "rename", lambda *paths: (events.append("renamed"), rename(*paths)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("renamed"), replace(*paths)))
    write_file(older / "file")
    assert [".tmp/" in event for event in events] == [True, False, False]
    assert events[1:] == ["renamed", str(older)]
    events.clear()
    write_folder(older / "new")
    assert {Path(event).name for event in events[:2]} >= {"config.json"}
    assert sum(event.endswith("file") for event in events) == 1
    assert events[-2:] == ["renamed", str(older)]


def test_links_are_written_through(older: Path) -> None:
    (older / "link").symlink_to(older / "folder")
    write_folder(older / "link")
    assert (older / "link").is_symlink()
    assert (older / "folder" / "config.json").read_text() == "new"


def test_an_input_is_never_the_output(older: Path) -> None:
    (older / "link").symlink_to(older / "folder")
    source = older / "folder"
    for output in (source, source / "stripped", older / "link", older / "link" / "new", older, source / ".."):
        with pytest.raises(UsageError, match="overwrite the input"):
            refuse_overwriting_input(output, [older / "file", source])
    refuse_overwriting_input(older / "folder2", [older / "file", source])


def tied() -> dict[str, Tensor]:
    shared = torch.arange(6.0).reshape(2, 3)
    return {
        "a": shared,
        "b": shared,
        "view": torch.arange(10000.0)[:2],
        "transposed": shared.T,
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_written_weights_read_back_and_are_reproducible(write: Callable[..., None], tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, tied())
    checkpoint = read_checkpoint(tmp_path / "one")
    assert checkpoint.tensors.keys() == tied().keys()
    for key, tensor in tied().items():
        assert torch.equal(checkpoint.tensors[key], tensor)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").stat().st_size < 5000  # not the 40000 bytes that the view looks at


def test_written_weights_have_ordinary_permissions_and_metadata(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    write_safetensors(tmp_path / "model.safetensors", tied())
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("ordinary", "model.safetensors")}
    assert len(modes) == 1
    assert read_safetensors(tmp_path / "model.safetensors")[1] == {"format": "pt"}
    write_safetensors(tmp_path / "model.safetensors", {}, {"by": "hand"})
    assert read_safetensors(tmp_path / "model.safetensors") == ({}, {"format": "pt", "config.json": '{"by": "hand"}'})


@pytest.mark.parametrize("write", [write_safetensors, write_torch])
def test_a_full_disk_is_named_whoever_writes(write: Callable[..., None], tmp_path: Path) -> None:
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(SurgeonError, match="File too large"), atomic_file(tmp_path / "model") as temporary:
            write(temporary, {"fc.weight": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert list(tmp_path.iterdir()) == []


def test_json_keeps_the_order_and_ends_with_a_newline(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": ["é"]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "b": 1,\n  "a": [\n    "é"\n  ]\n}\n'
