"""Models of transformers by their names on the Hub, from a cache that a test makes. No network is reached."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_texts import reader

from spgsurgeon.checkpoint.folders import read_manifest
from spgsurgeon.commands.graft import graft_folder
from spgsurgeon.commands.inspect import inspect
from spgsurgeon.errors import SurgeonError, UsageError
from spgsurgeon.loading.opening import open_model
from spgsurgeon.loading.request import ModelRequest

REVISION = "a" * 40


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as huggingface_hub keeps it, with one model, `owner/name`."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--owner--name.v1"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(REVISION)
    reader(repository / "snapshots" / REVISION)
    return tmp_path


@pytest.mark.parametrize("name", ["hf-hub:owner/name.v1", "transformers/owner/name.v1", "hf-hub:owner/name.v1@main"])
def test_a_name_is_the_folder_in_the_cache(cache: Path, name: str) -> None:
    opened = open_model(ModelRequest(name))
    folder = open_model(ModelRequest(str(cache / "models--owner--name.v1" / "snapshots" / REVISION)))
    assert opened.identity == folder.identity
    assert opened.preprocessing == folder.preprocessing
    assert (opened.hub_id, opened.source) == ("owner/name.v1", name)


def test_a_name_is_inspected(cache: Path) -> None:
    document = inspect("transformers/owner/name.v1")
    assert (document["source"], document["head"]["module"]) == ("transformers/owner/name.v1", "classifier")


def test_a_graft_remembers_the_name_and_takes_the_tokenizer(cache: Path, tmp_path: Path) -> None:
    graft_folder("transformers/owner/name.v1", tmp_path / "grafted")
    assert read_manifest(tmp_path / "grafted").base["hub_id"] == "owner/name.v1"
    assert (tmp_path / "grafted" / "tokenizer.json").is_file()


def test_what_is_not_there_is_said(cache: Path) -> None:
    with pytest.raises(SurgeonError) as caught:
        open_model(ModelRequest("transformers/owner/another"))
    assert caught.value.code == "not-on-hub"
    with pytest.raises(UsageError, match="name on the Hub"):
        open_model(ModelRequest("transformers/../../etc"))
