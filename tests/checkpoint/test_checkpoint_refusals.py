"""Who opened a file names it, once: readers are given what they read, and say what is wrong in it alone."""

from __future__ import annotations

import ast
import inspect
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from spgsurgeon.checkpoint import sealing
from spgsurgeon.checkpoint.containers import archives, formats, headers, torch_files
from spgsurgeon.checkpoint.folders import GraftManifest, read_grafted_folder, write_grafted_folder
from spgsurgeon.checkpoint.pickle import machine, pickles, rebuilding
from spgsurgeon.checkpoint.reading import read_outline
from spgsurgeon.checkpoint.refusals import MalformedError, UnreadableError, UnsafeError, naming
from spgsurgeon.checkpoint.state_dict import choosing, layouts, prefixes
from spgsurgeon.checkpoint.tensors import read_safetensors
from spgsurgeon.checkpoint.writing import refuse_existing
from spgsurgeon.errors import DamagedFileError, SurgeonError, UnsafeInputError, UsageError

WEIGHTS = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


def torch_file(document: object, *, legacy: bool = False) -> Callable[[Path], None]:
    return lambda path: torch.save(document, path, _use_new_zipfile_serialization=not legacy)


def cut(document: object, *, legacy: bool = False) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        torch.save(document, path, _use_new_zipfile_serialization=not legacy)
        path.write_bytes(path.read_bytes()[:-9])

    return write


def content(data: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(data) and None


def index(weight_map: object) -> Callable[[Path], None]:
    return content(json.dumps({"weight_map": weight_map}).encode())


# By what is wrong: the file's name, how it is written, and the class and code of its refusal.
REFUSED: dict[str, tuple[str, Callable[[Path], object], type[SurgeonError], str]] = {
    "empty": ("model.pth", content(b""), DamagedFileError, "empty-file"),
    "a web page": ("model.pth", content(b"<html>"), DamagedFileError, "web-page"),
    "no weights": ("model.csv", content(b"a,b\n"), UsageError, "unusable-file"),
    "a plain pickle": ("model.pth", content(pickle.dumps({"a": 1})), UsageError, "unusable-file"),
    "a call": ("model.pth", content(pickle.dumps(os.getcwd)), UnsafeInputError, "unsafe-pickle"),
    "a header cut off": ("model.safetensors", content(save(WEIGHTS)[:50]), DamagedFileError, "damaged-file"),
    "values cut off": ("model.safetensors", content(save(WEIGHTS)[:-1]), DamagedFileError, "damaged-file"),
    "an archive cut off": ("model.pth", cut(WEIGHTS), DamagedFileError, "damaged-file"),
    "a stream cut off": ("model.pth", cut(WEIGHTS, legacy=True), DamagedFileError, "damaged-file"),
    "a call in an archive": ("model.pth", torch_file({"a": os.getcwd}), UnsafeInputError, "unsafe-pickle"),
    "a call in a stream": ("model.pth", torch_file({"a": os.getcwd}, legacy=True), UnsafeInputError, "unsafe-pickle"),
    "no state dict": ("model.pth", torch_file([1]), UsageError, "unusable-file"),
    "a stranger": ("model.pth", torch_file(WEIGHTS | {"loss": 1}), DamagedFileError, "damaged-file"),
    "several models": (
        "model.pth",
        torch_file({"one": WEIGHTS, "two": dict(WEIGHTS)}),
        UsageError,
        "ambiguous-weights",
    ),
    "a sparse tensor": ("model.pth", torch_file({"a": torch.eye(2).to_sparse()}), UsageError, "not-dense"),
    "a flat parameter": ("model.pth", torch_file({"_flat_param": torch.ones(1)}), UsageError, "flat-parameters"),
    "a share": ("model.pth", torch_file({"optimizer_state_dict": {"zero_stage": 2}}), UsageError, "partial-weights"),
    "huge tensors": ("model.pth", torch_file({"a": torch.ones(1).expand(10**7)}), UnsafeInputError, "unsafe-input"),
    "an index of nothing": ("model.index.json", content(b"{}"), DamagedFileError, "damaged-file"),
    "a missing shard": ("model.index.json", index({"a": "nothing.safetensors"}), DamagedFileError, "missing-file"),
    "a Git LFS pointer": (
        "m.pth",
        content(b"version https://git-lfs.github.com/spec/"),
        DamagedFileError,
        "lfs-pointer",
    ),
    "a shard elsewhere": ("model.index.json", index({"a": "../a.safetensors"}), UnsafeInputError, "outside-folder"),
    "a shard that lacks a key": (
        "model.index.json",
        index({"a": "shard.safetensors"}),
        DamagedFileError,
        "damaged-file",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_file_is_named_once(case: str, tmp_path: Path) -> None:
    name, write, kind, code = REFUSED[case]
    save_file(WEIGHTS, tmp_path / "shard.safetensors")
    write(tmp_path / name)
    with pytest.raises(SurgeonError) as refused:
        read_outline(tmp_path / name)
    assert (type(refused.value), refused.value.code) == (kind, code)
    assert refused.value.message.startswith(f"{tmp_path / name} ")
    assert refused.value.message.count(str(tmp_path)) == 1


def test_codes_are_words_joined_by_dashes() -> None:
    codes = {
        keyword.value.value
        for path in Path(archives.__file__).parents[1].rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "code" and isinstance(keyword.value, ast.Constant)
    }
    assert codes > {code for _, _, _, code in REFUSED.values()} - {"unusable-file", "damaged-file", "unsafe-input"}
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", code) for code in codes)


def test_a_damaged_shard_is_named_and_its_index_is_not(tmp_path: Path) -> None:
    torch_file(WEIGHTS | {"loss": 1})(tmp_path / "shard.pth")
    index(dict.fromkeys(WEIGHTS, "shard.pth"))(tmp_path / "model.index.json")
    with pytest.raises(DamagedFileError, match=r"'loss' is not a tensor") as refused:
        read_outline(tmp_path / "model.index.json")
    assert refused.value.message.startswith(f"{tmp_path / 'shard.pth'} is damaged: ")
    assert refused.value.message.count(str(tmp_path)) == 1


@pytest.mark.parametrize("name", ["graft.json", "config.json", "model.safetensors", "temporary.safetensors"])
@pytest.mark.parametrize("found", [b"", b"[]", b'{"format_version": 1}', save({"a": torch.ones(1)}), None])
def test_a_damaged_file_of_a_grafted_folder_is_named_once(name: str, found: bytes | None, tmp_path: Path) -> None:
    base = dict.fromkeys(("source", "library", "architecture", "content_hash", "layout"), "x")
    base |= {"num_classes": 2, "tensors": 2, "model_args": {}}
    manifest = GraftManifest(
        package_version="0", base=base, trp={"kind": "dropout"}, site={"module": "fc"}, temporary_parameters=0
    )
    write_grafted_folder(tmp_path, base=WEIGHTS, temporary=WEIGHTS, config={}, manifest=manifest)
    read_grafted_folder(tmp_path)
    if found is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(found)
    kind = UsageError if found is None and name == "graft.json" else DamagedFileError
    with pytest.raises(kind) as refused:
        read_grafted_folder(tmp_path)
    assert refused.value.message.count(str(tmp_path)) == 1
    assert name in refused.value.message
    if kind is DamagedFileError:
        assert refused.value.code in ("damaged-file", "missing-file", "changed-file")


def test_what_readers_raise_keeps_all_but_its_want_of_a_name(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    for bare, kind, message in (
        (MalformedError("it is cut", hint="h", code="c"), DamagedFileError, "is damaged: it is cut"),
        (UnsafeError("it asks", hint="h", code="c", unsafe=["os"]), UnsafeInputError, "was not loaded: it asks"),
        (UnreadableError("is a poem", hint="h", code="c"), UsageError, "is a poem"),
    ):
        assert isinstance(bare, kind)
        with pytest.raises(kind) as raised, naming(tmp_path), naming(path):
            raise bare
        assert (raised.value.message, raised.value.hint, raised.value.code) == (f"{path} {message}", "h", "c")
        assert raised.value.details == bare.details


@pytest.mark.parametrize("chosen", ["ema", "teacher"])
def test_weights_that_a_file_does_not_have(chosen: str, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    with pytest.raises(UsageError) as refused:
        read_outline(tmp_path / "model.safetensors", chosen)
    assert refused.value.code == "no-such-weights"


def test_what_is_no_file_at_all(tmp_path: Path) -> None:
    for path, code in ((tmp_path, "not-a-file"), (tmp_path / "missing", "no-such-file")):
        with pytest.raises(UsageError) as refused:
            read_outline(path)
        assert refused.value.code == code


def test_an_output_that_exists(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        refuse_existing(tmp_path, force=False)
    assert refused.value.code == "output-exists"


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(SurgeonError) as raised:
        read_safetensors(tmp_path / "missing")
    assert raised.value.message == f"{tmp_path / 'missing'} can't be read: {os.strerror(2)}"
    assert (raised.value.kind, raised.value.code) == ("failed", "unreadable-file")


@pytest.mark.parametrize(
    "readers",
    [archives, choosing, formats, headers, layouts, machine, pickles, prefixes, rebuilding, sealing, torch_files],
)
def test_readers_are_given_what_they_read_and_no_path(readers: object) -> None:
    functions = [
        node
        for node in ast.walk(ast.parse(inspect.getsource(readers)))  # type: ignore[arg-type]
        if isinstance(node, ast.FunctionDef)
    ]
    assert functions
    for function in functions:
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        assert "Path" not in {ast.unparse(argument.annotation) for argument in arguments if argument.annotation}
